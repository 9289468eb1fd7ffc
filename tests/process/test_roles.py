"""Every method of every exposed object, asked by every role, by our codec and by Pyro's own protocol."""

from __future__ import annotations

import contextlib
import marshal
import pickle
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from acting import Somebody, acting
from Pyro5 import core
from Pyro5.server import DaemonObject
from waiting import wait_until

import pyrokernel as pk
from pyrokernel.errors import AccessRefusedError, ProtocolError
from pyrokernel.host.service import HostService
from pyrokernel.kernel.service import KernelService
from pyrokernel.messages import HOST_OBJECT, KERNEL_OBJECT, PUBLISHED_OBJECT, STATE_OBJECT
from pyrokernel.roles import Role
from pyrokernel.state.service import StateService
from pyrokernel.state.stock import StockState
from pyrokernel.wire.codec import Packed
from pyrokernel.wire.connection import MSG_INVOKE, frame
from pyrokernel.wire.direct import await_answer
from pyrokernel.wire.exposing import exposed_members
from pyrokernel.wire.nameserver import GuardedNameServer
from pyrokernel.wire.naming import Directory

ROLES = (Role.OBSERVER, Role.USER, Role.ADMIN)
LOOK, USE, RULE = ROLES

KERNEL = {
    LOOK: "ping have shipped commands plugins reference members refs reply follow complete inspect variables cells "
    "describe",
    USE: "execute call more submit values ship unship renew give_back share revoke pin unpin cancel curtail interrupt "
    "answer push pull",
    RULE: "dismiss",
}
HOST = {
    LOOK: "list_kernels await_kernel obituary deaths read_journal instances start_state describe",
    USE: "signal_kernel store_shipped keep_shipped drop_shipped",
    RULE: "start_kernels stop_kernels restart_kernels stop_state shutdown audit take_revoked",
}
STATE = {
    LOOK: "get get_many get_at keys entries items revision_of count spaces history watch locks length ping describe",
    USE: "write undo grant renew revoke lock unlock put take done stage",
}
STOCK = {LOOK: "ping describe keys entries get", USE: "set delete increment", RULE: "backup"}
NAMES = {LOOK: "ping count lookup list yplookup", USE: "register remove set_metadata", RULE: "take_revoked"}
DAEMON = {LOOK: "ping info registered get_metadata", USE: "get_next_stream_item close_stream"}
PUBLISHED = {USE: "snap"}

PUBLISH = """
import pyrokernel as pk
ran = []
class Camera:
    secret = 1
    @pk.expose
    def snap(self):
        ran.append("snap")
        return 7
    @property
    @pk.expose
    def exposure(self):
        ran.append("exposure")
        return 1
camera = Camera()
pk.publish("camera", camera)
class Nosy:
    def __dir__(self): ran.append("dir"); return ["found"]
    def __getattr__(self, name): ran.append("getattr"); raise AttributeError(name)
    def __repr__(self): ran.append("repr"); return "nosy"
    def __len__(self): ran.append("len"); return 1
    @property
    def prop(self): ran.append("prop"); return 1
nosy = Nosy()
"""


def methods(table: dict[Role, str]) -> dict[str, Role]:
    """Map each method of a table to the least role."""
    return {name: role for role, names in table.items() for name in names.split()}


class Places:
    """Where the objects of a mesh are.

    Args:
        mesh: Of one kernel.
    """

    def __init__(self, mesh: pk.Mesh) -> None:
        self.mesh = mesh
        mesh.shared.m["x"], mesh.shared.m["listed"] = [1], [2]
        mesh["k0"].execute(PUBLISH)
        (info,) = mesh.ps()
        settings = mesh.settings
        socket = core.URI(info.uri).location
        with contextlib.closing(Directory(settings.ns_address)) as names:
            state = names.lookup(STATE_OBJECT).uri
        self.uris = {
            "kernel": info.uri,
            "host": f"PYRO:{HOST_OBJECT}@./u:{settings.host_socket}",
            "names": f"PYRO:{core.NAMESERVER_NAME}@{settings.ns_address}",
            "daemon": f"PYRO:{core.DAEMON_NAME}@{socket}",
            "published": f"PYRO:{PUBLISHED_OBJECT}camera@{socket}",
            "state": state,
        }
        self.uris["stock"] = self.uris["state"]


@pytest.fixture(scope="module")
def places() -> Iterator[Places]:
    """A private mesh of one kernel with all there is."""
    with pk.local(1) as mesh:
        yield Places(mesh)


TABLES: dict[str, dict[str, Role]] = {
    "kernel": methods(KERNEL),
    "host": methods(HOST),
    "state": methods(STATE),
    "stock": methods(STOCK),
    "names": methods(NAMES),
    "daemon": methods(DAEMON),
    "published": methods(PUBLISHED),
}


CODECS = {"state": ("pickle5",), "stock": ("serpent", "json"), "names": ("serpent", "json")}
"""How objects are spoken to that are not spoken to by all."""


@pytest.mark.parametrize(
    ("what", "found"),
    [
        ("kernel", exposed_members(KernelService)[0]),
        ("host", exposed_members(HostService)[0]),
        ("stock", exposed_members(StockState)[0]),
        ("names", exposed_members(GuardedNameServer)[0]),
        ("daemon", exposed_members(DaemonObject)[0]),
        ("state", {name for name, member in vars(StateService).items() if hasattr(member, "asked")}),
    ],
)
def test_every_method_is_in_the_table_of_this_test(what: str, found: Any) -> None:
    assert set(TABLES[what]) == set(found)


@pytest.mark.parametrize("codec", ["pickle5", "serpent", "json"])
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("what", TABLES)
def test_each_role_is_refused_exactly_what_takes_a_higher_one(
    places: Places, what: str, role: Role, codec: str
) -> None:
    if codec not in CODECS.get(what, (codec,)):
        pytest.skip(f"{what} is not spoken to by {codec}")
    kind = "work" if what == "state" else "control"
    with acting(places.uris[what], role, codec=codec, kind=kind) as somebody:
        for method, needed in TABLES[what].items():
            # One argument too many, so that nothing is carried out: whoever may is told so.
            error = failure(somebody, method, *range(20))
            refused = "takes a" in str(error) and "an admin of this mesh can change that" in str(error)
            assert refused == (role < needed), f"{method} by {role.word}: {error!r}"
            if refused and codec == "pickle5":
                assert isinstance(error, AccessRefusedError)
                assert "eve is" in str(error)
                assert "\n" not in str(error)


def failure(somebody: Somebody, method: str, *args: Any, **more: Any) -> Exception | None:
    """Ask; return the error, None if there is none."""
    try:
        somebody.ask(method, *args, **more)
    except Exception as error:  # noqa: BLE001  whatever it is, the tests look at it
        return error
    return None


def test_nobody_is_refused_at_the_door(places: Places) -> None:
    for what in ("kernel", "host", "names", "state"):
        with pytest.raises(ConnectionRefusedError, match="nobody here"):
            Somebody(places.uris[what], Role.NOBODY, codec="serpent")


def test_the_greeting_says_who_one_is_and_what_one_may(places: Places) -> None:
    with acting(places.uris["kernel"], Role.OBSERVER, user="bob", codec="serpent") as bob:
        said = bob.greeting["handshake"]
        assert (said["user"], said["role"]) == ("bob", "observer")
    with acting(places.uris["kernel"], Role.OBSERVER, user="bob") as bob:
        bob.ask("ping")
        assert bob.connection.greeting["role"] == "observer"


def test_properties_and_batches_of_a_published_object_are_for_users(places: Places) -> None:
    with acting(places.uris["published"], Role.OBSERVER, codec="serpent") as eve:
        assert "takes a user" in str(failure(eve, "__getattr__", "exposure"))
        assert "takes a user" in str(failure(eve, "__setattr__", "exposure", 5))
        eve.send_stock(1, serpent_call(eve.object_id, "<batch>", [["snap", [], {}]]), flags=8)
        with pytest.raises(RuntimeError, match="takes a user"):
            eve._receive()
    with acting(places.uris["published"], Role.USER, codec="serpent") as user:
        assert user.ask("snap") == 7
        assert user.ask("__getattr__", "exposure") == 1


NOTICES = """
looks = []
class Noticed:
    def __get__(self, instance, owner): looks.append(owner)
@pk.expose
class Noticing:
    noticed = Noticed()
    def snap(self): return 7
pk.publish("noticing", Noticing())
looks.clear()
"""


def test_who_looks_at_a_published_object_runs_no_code_of_its_class(places: Places) -> None:
    kernel = places.mesh["k0"]
    kernel.execute(NOTICES)
    object_id = f"{PUBLISHED_OBJECT}noticing"
    with acting(places.uris["published"].replace(f"{PUBLISHED_OBJECT}camera", object_id), Role.OBSERVER) as eve:
        assert eve.connection is not None
    with acting(places.uris["daemon"], Role.OBSERVER, codec="serpent") as eve:
        assert "snap" in eve.ask("get_metadata", object_id)["methods"]
    assert kernel.execute("looks").result == []


def serpent_call(object_id: str, method: str, args: Any) -> bytes:
    from Pyro5.serializers import SerpentSerializer

    return bytes(SerpentSerializer().dumpsCall(object_id, method, args, {}))


def test_a_reference_by_url_is_opened_by_users_only(places: Places) -> None:
    token = places.mesh["k0"].ref("camera").url(expires="1h").rpartition("/")[2].partition("?")[0].partition("#")[0]
    operation = {"ref": token, "op": "call", "member": "snap"}
    with acting(places.uris["kernel"], Role.OBSERVER) as eve:
        assert isinstance(failure(eve, "call", operation, [[], {}]), AccessRefusedError)
        assert isinstance(failure(eve, "submit", "", {"call": [operation, [[], {}]]}), AccessRefusedError)
        handle = places.mesh["k0"].ref("camera")
        assert handle is not None


def test_an_observer_looks_and_no_code_runs(places: Places) -> None:
    kernel = places.mesh["k0"]
    kernel.execute("ran.clear()")
    with acting(places.uris["kernel"], Role.OBSERVER) as eve:
        assert eve.ask("complete", "nosy.", -1)["matches"] == ["prop"]
        assert eve.ask("complete", "nosy.prop.", -1)["matches"] == []
        assert eve.ask("complete", "camera.", -1)["matches"] == ["exposure", "secret", "snap"]
        assert eve.ask("inspect", "nosy", -1, {"detail": 1})["found"]
        assert "nosy" in {one["name"] for one in eve.ask("variables")}
        assert eve.ask("variables", {"namespace": "made_by_looking"}) == []
        assert eve.ask("complete", "x", -1, {"namespace": "made_by_looking"})["matches"] == []
        assert eve.ask("complete", "open('/", -1, {})["matches"] == []
        assert eve.ask("follow", 0, 0.0)["events"]
        assert isinstance(failure(eve, "follow", 0, 0.0, {"stdin": True}), AccessRefusedError)
        assert eve.ask("cells")
        # What the kernel would have to ask the shared state for, in its own name.
        assert not eve.ask("inspect", "shared.m['x']", -1)["found"]
        assert eve.ask("complete", "shared.m['", -1)["matches"] == []
    with acting(places.uris["kernel"], Role.USER) as user:
        assert user.ask("inspect", "shared.m['listed']", -1)["found"]
    assert kernel.execute("ran").result == []
    assert "made_by_looking" not in kernel.execute("import sys; str([m for m in sys.modules])").result


def test_an_observer_gets_a_reply_without_its_pickled_value(places: Places) -> None:
    cell = places.mesh["k0"].submit("6 * 7")
    cell.reply(timeout=10)
    with acting(places.uris["kernel"], Role.OBSERVER) as eve:
        reply = eve.ask("reply", cell.id)
        assert reply["text"] == "42"
        assert reply["value"] is None


def test_an_observer_reads_plain_data_of_the_shared_state_and_no_pickles(places: Places) -> None:
    places.mesh.shared.m["plain"] = {"a": [1, 2]}
    places.mesh["k0"].execute("class Odd: pass\nshared.m['odd'] = Odd()")
    with acting(places.uris["state"], Role.OBSERVER, kind="work") as eve:
        assert eve.ask("get", "", "plain")[1] == "plain"
        assert eve.ask("get", "", "plain")[4] is not None
        assert eve.ask("get", "", "odd")[1] == "pickle"
        assert eve.ask("get", "", "odd")[4] is None
        items = dict(eve.ask("items", ""))
        assert items["odd"][4] is None
        changes = eve.ask("watch", "", "", 0)["changes"]
        assert [one["packed"] for one in changes if one["key"] == "odd"] == [None]
    with acting(places.uris["state"], Role.USER, kind="work") as user:
        assert user.ask("get", "", "odd")[4] is not None


def test_files_of_this_machine_are_handed_to_nobody_from_elsewhere(places: Places) -> None:
    with acting(places.uris["state"], Role.USER, kind="work", files=True) as user, pytest.raises(ProtocolError):
        user.ask("stage", 10)


def test_only_its_maker_or_an_admin_revokes_a_reference(places: Places) -> None:
    kernel = places.mesh["k0"]
    kernel.execute("thing = object()")
    handle = kernel.ref("thing")
    (made,) = [one for one in places.mesh.refs() if one.shown == "thing"]
    with acting(places.uris["kernel"], Role.USER, user="bob") as bob:
        assert isinstance(failure(bob, "revoke", made.id), AccessRefusedError)
    with acting(places.uris["kernel"], Role.ADMIN, user="root2") as admin:
        assert admin.ask("revoke", made.id) == 1
    del handle


def test_who_has_the_name_of_the_maker_is_not_the_maker(places: Places) -> None:
    """A host or an account of that name, or somebody whom a host calls so."""
    places.mesh["k0"].execute("thing = object()")
    make = {"op": "make", "source": "thing"}
    with acting(places.uris["kernel"], Role.USER, user="bob") as bob:
        assert bob.ask("call", make, Packed.dump(((), {})), {"want": "value", "client": "bobs"})["status"] == "ok"
        (made,) = [one for one in places.mesh.refs() if one.shown == "thing"]
        assert made.by == "bob"
        for other in ({"of": "host"}, {"through": "lab2"}):
            with acting(places.uris["kernel"], Role.USER, user="bob", **other) as somebody:
                error = failure(somebody, "revoke", made.id)
                assert isinstance(error, AccessRefusedError)
        assert bob.ask("revoke", made.id) == 1
    kernel = places.mesh["k0"]
    handle = kernel.ref("thing")
    (made,) = [one for one in places.mesh.refs() if one.shown == "thing"]
    with acting(places.uris["kernel"], Role.USER, user=made.by) as namesake:
        assert isinstance(failure(namesake, "revoke", made.id), AccessRefusedError)
    kernel.revoke(made.id)
    del handle


def test_cells_and_writes_say_which_host_let_their_author_in(places: Places) -> None:
    with acting(places.uris["kernel"], Role.USER, user="bob", through="lab2") as bob:
        bob.ask("execute", "shared.m['by whom'] = 'through'")
    with acting(places.uris["kernel"], Role.USER, user="bob", of="host") as host:
        host.ask("execute", "'of a host'")
    found = {cell["source"]: cell for cell in places.mesh["k0"].cells()}
    assert found["shared.m['by whom'] = 'through'"]["author"] == "bob@lab2"
    assert found["shared.m['by whom'] = 'through'"]["through"] == "lab2"
    assert found["'of a host'"]["author"] == "host:bob"
    (entry,) = places.mesh.shared.entries("by whom")
    assert entry.via == "k0, bob@lab2"
    places.mesh.shared.delete("by whom")


def test_only_an_admin_kills(places: Places) -> None:
    (info,) = places.mesh.ps()
    with acting(places.uris["host"], Role.USER) as user:
        assert isinstance(failure(user, "signal_kernel", info.name, info.instance, 9), AccessRefusedError)
        assert user.ask("signal_kernel", info.name, "another-instance", 2) is False


def test_a_cell_of_somebody_from_elsewhere_is_of_who_the_gateway_says(places: Places) -> None:
    with acting(places.uris["kernel"], Role.USER, user="bob") as bob:
        bob.ask("execute", "1", {"author": "root"})
        assert bob.ask("cells", 1)[-1]["author"] == "bob"


def test_an_observer_is_told_on_a_work_connection_that_it_may_not(places: Places) -> None:
    with acting(places.uris["kernel"], Role.OBSERVER, kind="work") as eve:
        for _ in range(2):
            with pytest.raises(AccessRefusedError, match="execute"):
                eve.ask("execute", "1")


@pytest.mark.parametrize("role", ROLES)
def test_marshal_is_decoded_from_nobody(places: Places, role: Role) -> None:
    with acting(places.uris["kernel"], role) as somebody:
        somebody.ask("ping")
        somebody.connection.sock.setblocking(True)
        somebody.send_stock(2, marshal.dumps((KERNEL_OBJECT, "ping", [], {})))
        wait_until(lambda: somebody.connection.sock.recv(1) == b"")


def hand_made(somebody: Somebody, stream: bytes, head: bytes = b"") -> Exception | None:
    """Send an envelope of one's own making; return what comes of it."""
    payload = (head or struct.pack("!II", 0, len(stream))).ljust(64, b"\0") + stream
    somebody.connection.seq = (somebody.connection.seq + 1) & 0xFFFF
    somebody.connection.send(frame(MSG_INVOKE, [payload], seq=somebody.connection.seq))
    try:
        await_answer(somebody.connection, somebody.connection.seq, 20.0)
    except Exception as error:  # noqa: BLE001  as above
        return error
    return None


def bomb(arguments: bytes) -> bytes:
    """Return a request to complete whose arguments are instructions of one's own."""
    begin = b"\x80\x05(" + b"".join(
        b"\x8c" + bytes([len(word)]) + word.encode() for word in (KERNEL_OBJECT, "complete")
    )
    return begin + arguments + b"}t."


DEEP = b"]" + b"".join(b"h" + bytes([0]) for _ in range(3))

BOMBS = {
    "a class": b"cos\nsystem\n(\x8c\x04true\x85R\x85",
    "a class of the stack": b"\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R\x85",
    "a class of ours": b"\x8c\x15pyrokernel.wire.codec\x8c\x06Packed\x93)R\x85",
    "an extension": b"\x82\x01\x85",
    "a persistent id": b"\x8c\x01xQ\x85",
    "a large memo": b"Nr\xff\xff\xff\x7f\x85",
    "a state to build": b"}}b\x85",
    "an object": b"(ios\nsystem\n\x85",
    "a copy of the top": b"]2\x85",
    "a buffer": b"\x97\x85",
    "a number as text": b"L" + b"9" * 100_000 + b"L\n\x85",
    "lists twice": b"]\x94h\x00\x86",
    "lists within lists": b"]" * 30 + b"a" * 29 + b"\x85",
    "tuples within tuples": b")" + b"\x85" * 10_000,
    "a tuple as key": b"})\x85Ns\x85",
    "too much at once": b"N" * 100_000,
    "nothing": b"",
    "the end": b".",
    "a text cut off": b"X\xff\xff\xff\x7fabc",
    "a mark as value": b"((\x85",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_pickle_of_an_observer_is_not_carried_out(places: Places, name: str) -> None:
    with acting(places.uris["kernel"], Role.OBSERVER) as eve:
        error = hand_made(eve, bomb(BOMBS[name]))
        assert isinstance(error, ProtocolError), error
        assert eve.ask("ping"), "the connection is as good as before"


@pytest.mark.parametrize("what", ["kernel", "host", "state"])
def test_a_request_of_an_observer_has_its_size(places: Places, what: str) -> None:
    kind = "work" if what == "state" else "control"
    with acting(places.uris[what], Role.OBSERVER, kind=kind) as eve:
        eve.ask("describe")
        with pytest.raises(Exception, match=r"closed|reset|ended|Broken"):
            eve.ask("describe", b"x" * 300_000)


def test_what_takes_a_higher_role_is_refused_before_its_arguments_are_read(places: Places) -> None:
    with acting(places.uris["kernel"], Role.OBSERVER) as eve:
        words = (KERNEL_OBJECT, "push")
        begin = b"\x80\x05(" + b"".join(b"\x8c" + bytes([len(word)]) + word.encode() for word in words)
        assert isinstance(hand_made(eve, begin + b"cos\nsystem\n"), AccessRefusedError)
        # A whole call as our client sends it, with a pickled function and large buffers beside.
        packed = Packed(pickle.dumps(print), [b"x" * 100_000])
        assert isinstance(failure(eve, "call", packed, [[], {}]), AccessRefusedError)
