"""A daemon takes little from strangers, and nobody can hold it up."""

from __future__ import annotations

import contextlib
import json
import marshal
import os
import pickle
import socket
import struct
import time
import zlib
from pathlib import Path
from typing import Any

import pytest
from Pyro5 import api, errors, protocol
from served import OBJECT, PORTABLE, Service, reach
from waiting import wait_until

from pyrokernel.errors import AccessRefusedError, KernelRestartedError, KernelUnreachableError
from pyrokernel.roles import Role
from pyrokernel.wire.connection import frame
from pyrokernel.wire.daemon import HANDSHAKE_SECONDS, Daemon
from pyrokernel.wire.exposing import expose
from pyrokernel.wire.fanout import Fanout, Request
from pyrokernel.wire.proxy import connect
from pyrokernel.wire.trust import Peer

CONNECT = protocol.MSG_CONNECT


def dial(daemon: Daemon) -> socket.socket:
    return reach(daemon.locationStr)


def answer_of(sock: socket.socket) -> bytes:
    """Everything the daemon says until it closes the connection."""
    data = b""
    try:
        while piece := sock.recv(65536):
            data += piece
    except ConnectionResetError:
        pass
    return data


def ask(daemon: Daemon, method: str, *args: Any, object_id: str = OBJECT) -> Any:
    connection = connect(daemon.uri_for(object_id), kind="control")
    with contextlib.closing(connection), Fanout() as fanout:
        fanout.send(connection, Request(object_id, method, args), 0)
        (answer,) = fanout.answers(time.monotonic() + 10)
    if answer.error is not None:
        raise answer.error
    return answer.value


def test_a_stock_proxy_is_served_in_serpent(unix_daemon: Daemon) -> None:
    with api.Proxy(unix_daemon.uri_for(OBJECT)) as proxy:
        assert proxy.echo([1, {"a": 2.5}]) == [1, {"a": 2.5}]


def test_a_stock_proxy_is_served_in_json(unix_daemon: Daemon) -> None:
    with api.Proxy(unix_daemon.uri_for(OBJECT)) as proxy:
        proxy._pyroSerializer = "json"
        assert proxy.echo({"a": [1, 2]}) == {"a": [1, 2]}


def test_a_stock_proxy_gets_our_errors_as_text(unix_daemon: Daemon) -> None:
    with api.Proxy(unix_daemon.uri_for(OBJECT)) as proxy, pytest.raises(RuntimeError, match="CellNotFoundError"):
        proxy.fail()


@pytest.mark.parametrize("serializer", ["marshal", "msgpack"])
def test_other_serializers_are_refused_before_the_handshake(daemon: Daemon, serializer: str) -> None:
    with dial(daemon) as sock:
        ids = {"marshal": 2, "msgpack": 4}
        payload = marshal.dumps({"handshake": "hello", "object": OBJECT})
        sock.sendall(b"".join(frame(CONNECT, [payload], serializer_id=ids[serializer])))
        assert answer_of(sock) == b""


def test_our_codec_is_refused_before_the_handshake(daemon: Daemon, tmp_path: Path) -> None:
    witness = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {witness}",)

    with dial(daemon) as sock:
        sock.sendall(b"".join(frame(CONNECT, [pickle.dumps(Evil())])))
        assert answer_of(sock) == b""
    assert not witness.exists()


def test_our_codec_is_refused_on_a_connection_that_did_not_ask_for_it(daemon: Daemon) -> None:
    with dial(daemon) as sock:
        hello = json.dumps({"handshake": "hello", "object": OBJECT}).encode()
        sock.sendall(b"".join(frame(CONNECT, [hello], serializer_id=3)))
        header = sock.recv(40, socket.MSG_WAITALL)
        sock.recv(struct.unpack("!I", header[12:16])[0], socket.MSG_WAITALL)
        sock.sendall(b"".join(Request(OBJECT, "echo", [1]).buffers))
        header = sock.recv(40, socket.MSG_WAITALL)
        assert header[8:10] != b"", "an answer came"
        flags = struct.unpack("!H", header[8:10])[0]
        assert flags & protocol.FLAGS_EXCEPTION


def test_a_large_handshake_is_refused_by_its_header(daemon: Daemon) -> None:
    with dial(daemon) as sock:
        message = b"".join(frame(CONNECT, [b"'" + b"x" * 5000 + b"'"], serializer_id=1))
        sock.sendall(message[:40])
        assert answer_of(sock) == b""


def test_a_compressed_handshake_is_refused(daemon: Daemon) -> None:
    with dial(daemon) as sock:
        bomb = zlib.compress(b"'" + b" " * 1_000_000 + b"'")
        sock.sendall(b"".join(frame(CONNECT, [bomb], serializer_id=1, flags=protocol.FLAGS_COMPRESSED)))
        assert answer_of(sock) == b""


@pytest.mark.parametrize("garbage", [b"", b"\0" * 40, b"GET / HTTP/1.1\r\n\r\n" + b" " * 60, os.urandom(4096)])
def test_garbage_ends_its_connection_and_no_other(daemon: Daemon, garbage: bytes) -> None:
    with dial(daemon) as sock:
        with contextlib.suppress(OSError):  # it may have closed the connection after the first bytes
            sock.sendall(garbage)
            sock.shutdown(socket.SHUT_WR)
        answer_of(sock)
    assert ask(daemon, "echo", 1) == 1


def test_garbage_after_the_handshake_ends_the_connection(daemon: Daemon) -> None:
    connection = connect(daemon.uri_for(OBJECT), kind="control")
    with Fanout() as fanout:
        fanout.send(connection, Request(OBJECT, "echo", [1]), 0)
        list(fanout.answers(time.monotonic() + 5))
        fanout.release(connection)
    connection.send([os.urandom(4096)])
    connection.sock.settimeout(10)
    assert answer_of(connection.sock) == b""
    connection.close()
    assert ask(daemon, "echo", 1) == 1


def test_silent_connections_stall_nobody_and_are_closed(daemon: Daemon) -> None:
    silent = [dial(daemon) for _ in range(200)]
    try:
        started = time.monotonic()
        assert ask(daemon, "echo", 1) == 1
        assert time.monotonic() - started < HANDSHAKE_SECONDS, "it waited for the silent ones"
        assert answer_of(silent[0]) == b"", "a silent one is closed in the end"
        wait_until(lambda: daemon.connection_count() == 0, timeout=15)
    finally:
        for sock in silent:
            sock.close()


def test_a_handshake_that_drips_is_closed_after_its_time(daemon: Daemon) -> None:
    with dial(daemon) as sock:
        message = b"".join(frame(CONNECT, [b"{}"], serializer_id=1))
        sock.sendall(message[:20])
        started = time.monotonic()
        assert answer_of(sock) == b""
        assert time.monotonic() - started < HANDSHAKE_SECONDS + 5


def test_unexposed_and_private_methods_are_refused(daemon: Daemon) -> None:
    for method in ("hidden", "__init__", "_secret"):
        with pytest.raises(Exception, match=r"unexposed|private"):
            ask(daemon, method)


class _Seen:
    @expose(Role.OBSERVER)
    def look(self) -> int:
        return 1


def test_who_decides_about_an_object_and_who_serves_it_mean_the_same_one(daemon: Daemon) -> None:
    """By the id that other machines use, too: `OBJECT/WORD`, where only the word of this very socket is none of it."""
    word = Path(daemon.locationStr.removeprefix("./u:")).stem
    daemon.objectsById["seen"] = _Seen()
    daemon.offer(_Seen(), "seen/own")
    role, get = daemon.admission.needed_role, daemon.objectsById.get
    for object_id in ("seen", f"seen/{word}"):
        assert (role(object_id, "look"), get(object_id)) == (Role.OBSERVER, daemon.objectsById["seen"])
    for object_id in ("seen/own", f"seen/own/{word}"):
        assert (role(object_id, "look"), get(object_id)) == (Role.USER, daemon.objectsById["seen/own"])
    for object_id in ("seen/other", f"seen/{word}/{word}", f"/{word}", ""):
        assert (role(object_id, "look"), get(object_id)) == (Role.ADMIN, None)


def test_what_is_a_users_may_change_by_whatever_id_it_is_called(daemon: Daemon) -> None:
    class Own:
        @expose(Role.OBSERVER)
        def look(self) -> int:
            return 1

    daemon.offer(Own(), "camera")
    word = Path(daemon.locationStr.removeprefix("./u:")).stem
    for number in (1, 2):
        assert ask(daemon, "look", object_id=f"camera/{word}") == number
        Own.look = expose(Role.OBSERVER)(lambda self: 2)  # type: ignore[method-assign]


def test_an_unknown_object_is_refused(daemon: Daemon) -> None:
    connection = connect(daemon.uri_for(OBJECT), kind="control")
    with Fanout() as fanout:
        fanout.send(connection, Request("no.such.object", "echo", [1]), 0)
        (answer,) = fanout.answers(time.monotonic() + 5)
    assert "no.such.object" in str(answer.error)


def test_an_envelope_may_not_name_a_class(daemon: Daemon, tmp_path: Path) -> None:
    witness = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {witness}",)

    stream = pickle.dumps((OBJECT, "echo", (Evil(),), {}))
    payload = struct.pack("!II", 0, len(stream)) + bytes(56) + stream
    connection = connect(daemon.uri_for(OBJECT), kind="control")
    request = Request(OBJECT, "echo", [1])
    request.buffers = frame(protocol.MSG_INVOKE, [payload], seq=request.seq)
    with Fanout() as fanout:
        fanout.send(connection, request, 0)
        (answer,) = fanout.answers(time.monotonic() + 5)
    assert "may not name" in str(answer.error)
    assert not witness.exists()


def test_the_peer_is_known_by_its_uid(daemon: Daemon) -> None:
    assert ask(daemon, "who") == os.getuid()


def test_another_user_is_refused_at_accept(unix_daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyrokernel.wire import trust

    monkeypatch.setattr(trust, "peer_of", lambda sock: trust.Peer(uid=os.getuid() + 1))
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(unix_daemon.locationStr.removeprefix("./u:"))
        assert answer_of(sock) == b""


def test_a_client_accepted_during_close_is_not_served(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    admit = daemon.transportServer.endpoint.admit

    def close_first(client: socket.socket) -> Peer:
        daemon.close()
        return admit(client)

    monkeypatch.setattr(daemon.transportServer.endpoint, "admit", close_first)
    try:
        connection = connect(daemon.uri_for(OBJECT), kind="control")
    except KernelUnreachableError:
        return  # it was closed before our greeting had left
    with Fanout() as fanout:
        fanout.send(connection, Request(OBJECT, "echo", [1]), "x")
        (answer,) = fanout.answers(time.monotonic() + 20)
    assert answer.lost


def test_a_client_refuses_a_daemon_of_another_user(unix_daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyrokernel.errors import AccessRefusedError
    from pyrokernel.wire import trust

    monkeypatch.setattr(trust, "peer_of", lambda sock: trust.Peer(uid=os.getuid() + 1))
    with pytest.raises(AccessRefusedError, match="uid"):
        connect(unix_daemon.uri_for(OBJECT), kind="control")


def test_a_directory_that_others_may_enter_is_refused(private_dir: Path) -> None:
    from pyrokernel.errors import AccessRefusedError

    private_dir.chmod(0o755)
    with pytest.raises(AccessRefusedError, match="chmod 700"):
        Daemon(private_dir / "x.sock", identity={}, portable=PORTABLE)


def test_close_leaves_no_socket_file_and_no_thread(private_dir: Path, service: Service) -> None:
    import threading

    before = set(threading.enumerate())
    served = Daemon(private_dir / "e.sock", identity={}, portable=PORTABLE)
    served.register(service, OBJECT)
    served.start()
    assert ask(served, "echo", 1) == 1
    served.close()
    assert not (private_dir / "e.sock").exists()
    wait_until(lambda: not set(threading.enumerate()) - before)


def test_a_thousand_clients_are_served(daemon: Daemon) -> None:
    connections = [connect(daemon.uri_for(OBJECT), kind="control") for _ in range(1000)]
    try:
        request = Request(OBJECT, "echo", ["x"])
        with Fanout() as fanout:
            for number, connection in enumerate(connections):
                fanout.send(connection, request, number)
            answers = list(fanout.answers(time.monotonic() + 30))
        assert len(answers) == 1000
        assert {answer.value for answer in answers} == {"x"}
    finally:
        for connection in connections:
            connection.close()
    wait_until(lambda: daemon.connection_count() == 0)


def test_a_version_that_does_not_match_is_said(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyrokernel.errors import KernelUnreachableError
    from pyrokernel.wire import proxy

    monkeypatch.setattr(proxy, "PROTOCOL_VERSION", 99)
    with pytest.raises(KernelUnreachableError, match="install the same version"):
        ask(daemon, "echo", 1)


def test_a_stock_ping_is_answered(unix_daemon: Daemon) -> None:
    with api.Proxy(unix_daemon.uri_for(OBJECT)) as proxy:
        proxy._pyroBind()
        protocol.SendingMessage.ping(proxy._pyroConnection)


def test_a_stock_client_of_a_closed_daemon_gets_pyros_error(private_dir: Path) -> None:
    with api.Proxy(f"PYRO:x@./u:{private_dir / 'none.sock'}") as proxy, pytest.raises(errors.CommunicationError):
        proxy._pyroBind()


def test_another_instance_serves_nothing_and_says_who_it_is(daemon: Daemon, service: Service) -> None:
    connection = connect(daemon.uri_for(OBJECT), kind="control", instance="an earlier one")
    with Fanout() as fanout:
        fanout.send(connection, Request(OBJECT, "mark"), 0)
        (answer,) = fanout.answers(time.monotonic() + 5)
    assert isinstance(answer.error, KernelRestartedError)
    assert answer.error.new_instance == "i"
    assert not service.marked


def test_a_kernel_on_tcp_is_refused_even_on_loopback() -> None:
    with pytest.raises(AccessRefusedError, match="unix socket"):
        connect("PYRO:pyrokernel.kernel@127.0.0.1:9", kind="control")
