"""What goes wrong around the shared state: full disks, damaged files, services that are stopped, killed, or two."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from served import PORTABLE
from state_rooms import Room
from waiting import wait_until

import pyrokernel as pk
from pyrokernel.client import leases
from pyrokernel.client.shared import Shared
from pyrokernel.errors import (
    AccessRefusedError,
    HostError,
    NameServerNotFoundError,
    PyrokernelError,
    StateCompactedError,
    StateCorruptError,
    StateStorageError,
    StateUnavailableError,
)
from pyrokernel.state.backups import restore
from pyrokernel.wire.naming import Directory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals and mounts as Linux has them")


class Lab:
    """A served mesh, its shared state, and where that keeps its files."""

    def __init__(self, served: Any, **options: Any) -> None:
        self.served = served
        self.mesh: pk.Mesh = served.connect(**options)
        self.shared: Shared = self.mesh.shared
        self.shared.m["first"] = 1
        self.directory = Path(self.shared.describe()["directory"])

    @property
    def database(self) -> Path:
        return self.directory / "state.db"

    def pid(self) -> int:
        """Return the process of the service."""
        return int(self.shared.describe()["pid"])

    def stop(self) -> None:
        """End the service in order."""
        (host,) = self.mesh.hosts()
        self.mesh.ask_host(host, "stop_state", timeout=40)


Labs = Callable[..., Lab]


@pytest.fixture
def labs(served_at: Any, places: dict[str, str]) -> Iterator[Labs]:
    """Makes labs, in `places` unless other ones are given."""
    made: list[Lab] = []

    def make(where: dict[str, str] | None = None, **options: Any) -> Lab:
        made.append(Lab(served_at(where or places, "-n", "1"), **options))
        return made[-1]

    yield make
    for lab in made:
        lab.mesh.close()


@pytest.fixture
def lab(labs: Labs) -> Lab:
    """A lab on the usual disk."""
    return labs()


# A full disk


@pytest.fixture
def small_disk(places: dict[str, str]) -> Iterator[Path]:
    """A disk of a few megabytes, for the state."""
    path = Path(places["runtime_dir"]).parent / "disk"
    path.mkdir(mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", "size=6M,mode=700", "none", str(path)]
    if os.getuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a small disk can be mounted by root only")
    yield path
    subprocess.run(["umount", "-l", path], check=True)


def fill(disk: Path) -> Path:
    """Take all the room that is left."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while stream.write(b"x" * 4096):
            pass
    return filler


def until_full(write: Callable[[int], object]) -> int:
    """Write until it fails; return how often it did not."""
    for number in range(5000):
        try:
            write(number)
        except StateStorageError as error:
            # No pytest.raises: when it will be full is not known.
            assert "No space left" in str(error) or "full" in str(error)  # noqa: PT017
            return number
    raise AssertionError("the disk is never full")


def test_on_a_full_disk_writes_fail_reads_go_on_and_nothing_is_lost(
    small_disk: Path, labs: Labs, places: dict[str, str]
) -> None:
    lab = labs({**places, "state_dir": str(small_disk / "s")})
    shared, queue = lab.shared, lab.shared.queue("q")
    large = bytes(range(256)) * 1024
    shared.m["large"] = large
    shared.m["log"] = [0]
    queue.put("before")
    shared.set("soon", 1, ttl=0.5)
    pid = lab.pid()
    filler = fill(small_disk)
    count = until_full(lambda number: shared.set("small", number))
    until_full(lambda number: queue.put("x" * 1000))
    until_full(lambda number: shared.increment("first"))
    first, waiting = shared.get("first"), len(queue)
    with pytest.raises(StateStorageError):
        shared.m["large"] = large * 4
    with pytest.raises(StateStorageError):
        shared.m["log"].append(1)
    assert shared.get("small") == (count - 1 if count else None)
    assert (shared.get("large"), shared.get("log"), shared.get("first"), len(queue)) == (large, [0], first, waiting)
    assert {"first", "large", "log"} <= set(shared.keys())
    assert shared.history("first")[0].summary == str(first)
    assert lab.pid() == pid
    filler.unlink()
    shared.m["large"] = large * 2
    shared.m["log"].append(1)
    assert shared.increment("first") == first + 1
    assert queue.get(timeout=5) == "before"
    wait_until(lambda: "soon" not in shared.m)
    os.kill(pid, signal.SIGKILL)
    assert (shared.get("large"), shared.get("log"), shared.get("first")) == (large * 2, [0, 1], first + 1)
    assert len(queue) == waiting - 1


def test_a_service_starts_and_is_read_on_a_full_disk(small_disk: Path, labs: Labs, places: dict[str, str]) -> None:
    lab = labs({**places, "state_dir": str(small_disk / "s")})
    for number in range(100):
        lab.shared.set(f"k{number}", number)
    pid = lab.pid()
    filler = fill(small_disk)
    until_full(lambda number: lab.shared.set("small", number))
    os.kill(pid, signal.SIGKILL)
    assert [lab.shared.get(f"k{number}") for number in (0, 99)] == [0, 99]
    assert len(lab.shared.m) >= 101
    filler.unlink()
    lab.shared.set("k0", 1)
    assert lab.shared.get("k0") == 1


# Damage


def fill_state(lab: Lab) -> None:
    lab.shared.update({f"key{number:04d}": "x" * 200 for number in range(2000)})


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda path: path.write_text("Dear diary\n" * 500), id="text"),
        pytest.param(lambda path: path.write_bytes(b""), id="empty"),
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:5000]), id="truncated"),
        pytest.param(lambda path: path.write_bytes(bytes(4096) + path.read_bytes()[4096:]), id="first page"),
        pytest.param(lambda path: path.unlink(), id="gone"),
    ],
)
def test_a_damaged_database_is_said_left_as_it_is_and_replaced_by_a_backup(
    lab: Lab, spoil: Callable[[Path], Any]
) -> None:
    fill_state(lab)
    lab.shared.m["large"] = bytes(200_000)
    backup = lab.shared.backup("good")
    lab.stop()
    spoil(lab.database)
    before = lab.database.read_bytes() if lab.database.exists() else None
    for _ in range(2):
        with pytest.raises(StateCorruptError) as caught:
            lab.shared.get("key0001")
        assert (caught.value.path, caught.value.backup) == (str(lab.database), backup)
        assert backup in str(caught.value)
    assert (lab.database.read_bytes() if lab.database.exists() else None) == before
    assert any((lab.directory / "values").iterdir())
    aside = restore(lab.directory, Path(backup), lab.stop)
    assert lab.shared.get("key0001") == "x" * 200
    assert lab.shared.get("large") == bytes(200_000)
    if before is not None:
        assert (aside / "state.db").read_bytes() == before


def read_all(lab: Lab) -> None:
    for number in range(2000):
        lab.shared.get(f"key{number:04d}")


def test_damage_in_the_middle_is_told_to_whom_it_concerns(lab: Lab) -> None:
    fill_state(lab)
    backup = lab.shared.backup()
    lab.stop()
    data = lab.database.read_bytes()
    pages = [data[start : start + 4096] for start in range(0, len(data), 4096)]
    # A page that nobody reads at the start: of the keys, not of the log, whose rows go on after the key.
    place = max(range(len(pages)), key=lambda page: len(re.findall(rb"key0\d\d\d(?!set)", pages[page])))
    pages[place] = b"\xa5" * 4096
    lab.database.write_bytes(b"".join(pages))
    with pytest.raises(StateCorruptError) as caught:
        read_all(lab)
    assert caught.value.backup == backup
    instance = lab.shared._link.ask("ping")
    assert sum(readable(lab, number) for number in range(2000)) > 1500
    with pytest.raises(StateCorruptError):
        lab.shared.backup("bad")
    assert [path.name for path in Path(backup).parent.iterdir()] == [Path(backup).name]
    assert lab.shared._link.ask("ping") == instance


def readable(lab: Lab, number: int) -> bool:
    """Whether a key can be read; if so, it is what it was."""
    with contextlib.suppress(StateCorruptError):
        assert lab.shared.get(f"key{number:04d}") == "x" * 200
        return True
    return False


def test_a_damaged_file_of_last_writes_is_said_too(lab: Lab) -> None:
    ahead = lab.directory / "state.ahead"
    for number in range(20):
        lab.shared.set(f"k{number}", number)
    # The database is given what waits whenever nobody asks for anything; what it has got is read twice without harm.
    data = bytearray()
    while len(data) < 100:
        lab.shared.set("again", len(data))
        data[:] = ahead.read_bytes()
    lab.stop()
    data[50] ^= 0xFF
    ahead.write_bytes(data)
    with pytest.raises(StateCorruptError, match=r"state\.ahead"):
        lab.shared.get("k1")
    assert ahead.read_bytes() == bytes(data)


# Backups


def test_a_backup_made_while_everybody_writes_is_of_one_moment(lab: Lab, tmp_path: Path) -> None:
    over = threading.Event()
    lab.shared.update({"a": 0, "b": 0})

    def write(number: int) -> None:
        with lab.served.connect() as mesh:
            while not over.is_set():
                with contextlib.suppress(pk.StateConflictError), mesh.shared.transaction() as step:
                    step["a"], step["b"] = step["a"] + 1, step["b"] - 1
                    step[f"large{number}"] = os.urandom(1) * 100_000

    threads = [threading.Thread(target=write, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    backups = []
    try:
        for number in range(3):
            revision = lab.shared.describe()["revision"]
            wait_until(lambda since=revision: lab.shared.describe()["revision"] > since + 30)
            backups.append(Path(lab.shared.backup(f"b{number}")))
    finally:
        over.set()
        for thread in threads:
            thread.join()
    for backup in backups:
        directory = tmp_path / backup.name
        restore(directory, backup)
        room = Room(directory)
        a, b = (int(room.text(key) or 0) for key in ("a", "b"))
        assert a > 0
        assert a + b == 0
        assert len(room.store.filed()) > 0
        for row in room.store.filed():
            data = (room.files.values / row.file).read_bytes()
            assert len(set(data[: row.size])) == 1
        room.close()


def test_who_knew_the_replaced_state_is_not_taken_in_by_the_restored_one(lab: Lab) -> None:
    """Its numbers would mean other things: to watchers, to live lists, and to whatever a lock protects."""
    lab.shared.m["list"] = ["old"]
    backup = lab.shared.backup()
    for number in range(5):
        lab.shared.set("n", number)
    lab.shared.m["list"] = ["newer"]
    watch = lab.shared.watch()
    view, version = lab.shared.m["list"], lab.shared.read("list")
    with lab.shared.lock("l") as before:
        pass
    restore(lab.directory, Path(backup), lab.stop)
    for number in range(12):
        lab.shared.set("n", -number)
    with pytest.raises(StateCompactedError):
        watch.get(timeout=5)
    with pytest.raises(StateCompactedError):
        lab.shared.watch(since=watch.revision).get(timeout=5)
    assert view == ["old"]
    with pytest.raises(pk.StateConflictError):
        lab.shared.compare_and_set("list", [], version.revision)
    with lab.shared.lock("l") as after:
        assert after > before


# Two of them


def test_a_second_service_for_the_same_files_is_refused(lab: Lab, served_at: Any, places: dict[str, str]) -> None:
    other = served_at({**places, "runtime_dir": places["runtime_dir"] + "2"}, "-n", "1")
    with other.connect() as mesh, pytest.raises(StateStorageError, match="only one service"):
        mesh.shared.get("first")
    assert lab.shared.get("first") == 1


@pytest.fixture
def name_server(places: dict[str, str]) -> Iterator[str]:
    """The address of a stock name server."""
    path = Path(places["runtime_dir"]).parent / "ns.sock"
    process = subprocess.Popen(
        [sys.executable, "-m", "Pyro5.nameserver", "-u", str(path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def answers() -> bool:
        with contextlib.suppress(NameServerNotFoundError):
            Directory(f"./u:{path}", timeout=1).ping()
            return True
        return False

    wait_until(answers, timeout=20)
    yield f"./u:{path}"
    process.kill()
    process.wait()


def test_of_two_hosts_one_keeps_the_state(name_server: str, served_at: Any, places: dict[str, str]) -> None:
    """The setting says which; without it nobody guesses, and the other one refuses even when it is asked."""
    common = {"ns": name_server, "state_host": "h1"}
    first = served_at({**places, **common, "host": "h1"}, "-n", "1")
    elsewhere = {name: path + "2" for name, path in places.items()}
    served_at({**elsewhere, **common, "host": "h2"}, "--name", "other")
    with first.connect() as mesh:
        mesh.shared.m["a"] = 1
        assert mesh.shared.describe()["host"] == "h1"
        hosts = {host.name: host for host in mesh.hosts()}
        with pytest.raises(HostError, match="'h1' keeps the shared state"):
            mesh.ask_host(hosts["h2"], "start_state", timeout=20)
        pid = mesh.shared.describe()["pid"]
        os.kill(pid, signal.SIGKILL)
        assert mesh.shared.get("a") == 1
    with first.connect(state_host="") as mesh:
        assert mesh.shared.get("a") == 1  # it is registered, so nobody has to be asked to start it
        (keeper,) = [host for host in mesh.hosts() if host.name == "h1"]
        mesh.ask_host(keeper, "stop_state", timeout=40)
    with first.connect(state_host="") as mesh, pytest.raises(HostError, match="several hosts") as refused:
        mesh.shared.get("a")
    assert refused.value.__context__ is None, "one line, not two tracebacks"
    with first.connect() as mesh:
        assert mesh.shared.get("a") == 1


def test_of_two_hosts_that_both_want_it_the_second_is_refused(
    name_server: str, served_at: Any, places: dict[str, str]
) -> None:
    """Else half of the mesh would write where the other half does not look."""
    first = served_at({**places, "ns": name_server, "host": "h1"}, "-n", "1")
    with first.connect() as mesh:
        mesh.shared.m["a"] = 1
        elsewhere = {name: path + "2" for name, path in places.items()}
        served_at({**elsewhere, "ns": name_server, "host": "h2"}, "--name", "other")
        hosts = {host.name: host for host in mesh.hosts()}
        with pytest.raises(PyrokernelError, match=r"pyrokernel\.shared"):
            mesh.ask_host(hosts["h2"], "start_state", timeout=20)
        assert mesh.shared.describe()["host"] == "h1"
        assert mesh.shared.get("a") == 1


def test_files_that_others_may_enter_are_refused(lab: Lab) -> None:
    lab.stop()
    os.chmod(lab.directory, 0o777)
    with pytest.raises(PyrokernelError, match="chmod 700"):
        lab.shared.get("first")
    os.chmod(lab.directory, 0o700)
    assert lab.shared.get("first") == 1


# Stopped and killed


def test_a_service_that_is_stopped_is_told_in_time_and_works_again(labs: Labs) -> None:
    lab = labs(timeout=0.5)
    pid = lab.pid()
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(StateUnavailableError) as caught:
            lab.shared.get("first")
        assert not caught.value.unsure
        with pytest.raises(StateUnavailableError) as caught:
            lab.shared.set("second", 2)
        assert caught.value.unsure
    finally:
        os.kill(pid, signal.SIGCONT)
    assert lab.shared.get("first") == 1
    lab.shared.set("third", 3)
    assert lab.pid() == pid


def test_locks_outlast_a_service_that_was_stopped_for_a_while(labs: Labs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their client comes with another connection meanwhile; that it gives up the first one must end none of them."""
    monkeypatch.setattr(leases, "_PATIENCE_SECONDS", 0.3)
    lab = labs()
    held = [lab.shared.lock(name, ttl=6.0) for name in ("a", "b", "c")]
    tokens = [lock.acquire() for lock in held]
    pid = lab.pid()
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: lab.shared._keys.leases._silent)
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: not lab.shared._keys.leases._silent)
    # What the closing of the first connection ends is ended by now: it was there before this question.
    assert [lock.check() for lock in held] == tokens
    for lock in held:
        lock.release()


def test_twenty_kills_of_the_service_lose_no_answered_write(lab: Lab) -> None:
    told: list[int] = []
    failures: list[BaseException] = []
    over = threading.Event()

    def count() -> None:
        try:
            while not over.is_set():
                told.append(lab.shared.increment("n"))
        except BaseException as error:  # noqa: BLE001  it is told below
            failures.append(error)

    thread = threading.Thread(target=count)
    thread.start()
    pids = set()
    try:
        for _ in range(20):
            enough = len(told) + 5
            wait_until(lambda enough=enough: len(told) > enough or failures, timeout=30)
            pid = lab.pid()
            pids.add(pid)
            os.kill(pid, signal.SIGKILL)
    finally:
        over.set()
        thread.join()
    assert failures == []
    assert told == list(range(1, len(told) + 1))
    assert lab.shared.get("n") == len(told)
    assert len(pids) == 20


def test_a_host_that_dies_and_comes_back_keeps_the_state(lab: Lab) -> None:
    pid = lab.pid()
    os.kill(lab.served.host_pid(), signal.SIGKILL)
    assert lab.shared.increment("first") == 2
    lab.served.serve()
    assert lab.pid() == pid
    os.kill(pid, signal.SIGKILL)
    assert lab.shared.increment("first") == 3
    pid = lab.pid()
    os.kill(lab.served.host_pid(), signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(PyrokernelError), lab.served.connect(timeout=0.5) as mesh:
        mesh.shared.get("first")
    lab.served.serve()
    assert lab.shared.increment("first") == 4


@pytest.mark.skipif(PORTABLE, reason="in portable mode large values are not written by their clients")
def test_a_large_value_is_written_though_the_service_dies_in_between(lab: Lab) -> None:
    """Its file was handed out by a service that is gone."""
    fields = lab.shared._keys.write_of("large", b"x" * 200_000)
    assert "file" in fields
    os.kill(lab.pid(), signal.SIGKILL)
    lab.shared._keys.write([fields])
    assert lab.shared.get("large") == b"x" * 200_000


def in_threads(count: int, work: Callable[[int], None]) -> None:
    """Do something in threads at once; raise what one of them raises."""
    failures: list[BaseException] = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as error:  # noqa: BLE001  it is raised below
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def test_many_threads_write_large_values_at_once(lab: Lab) -> None:
    """More of them than connections are kept."""

    def write(number: int) -> None:
        for turn in range(10):
            value = bytes([number, turn]) * 50_000
            lab.shared.set(f"k{number}", value)
            assert lab.shared.get(f"k{number}") == value

    in_threads(12, write)
    assert len(lab.shared.m) == 13


def test_many_threads_use_locks_at_once(lab: Lab) -> None:
    """Their leases are renewed over one connection."""
    lab.shared.set("n", 0)

    def work(_: int) -> None:
        for _ in range(10):
            with lab.shared.lock("l", ttl=5.0, timeout=30.0):
                lab.shared.set("n", lab.shared.get("n") + 1)

    in_threads(8, work)
    assert lab.shared.get("n") == 80


# Forks


def run_script(lab: Lab, source: str) -> subprocess.Popen[str]:
    """Run Python that has `shared` of the mesh."""
    head = "import os, sys, pyrokernel as pk\nmesh = pk.connect(); shared = mesh.shared\n"
    return subprocess.Popen(
        [sys.executable, "-c", head + textwrap.dedent(source)],
        env=lab.served.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.PIPE, text=True,
    )  # fmt: skip


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def test_a_forked_child_shares_nothing_with_its_parent(lab: Lab) -> None:
    """Not the connections, nor the ids by which requests are known."""
    process = run_script(
        lab,
        """
        shared.increment("n"); shared.m["list"] = []
        children = []
        for name in "ab":
            child = os.fork()
            if not child:
                for number in range(50):
                    shared.increment("n"); shared.m["list"].append(name + str(number))
                os._exit(0)
            children.append(child)
        for number in range(50):
            shared.increment("n"); shared.m["list"].append("p" + str(number))
        assert all(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0 for child in children)
        """,
    )
    _, errors = process.communicate(timeout=40)
    assert process.returncode == 0, errors
    assert lab.shared.get("n") == 151
    assert sorted(lab.shared.get("list")) == sorted(f"{name}{number}" for name in "abp" for number in range(50))


def test_a_lock_is_free_at_once_when_its_owner_dies_though_a_child_of_it_lives(lab: Lab) -> None:
    process = run_script(
        lab,
        """
        shared.lock("l", ttl=1000.0).acquire()
        child = os.fork()
        if not child:
            sys.stdin.read()
            os._exit(0)
        print("held", flush=True)
        os.waitpid(child, 0)
        """,
    )
    assert first_line(process) == "held\n"
    assert len(lab.shared.locks()) == 1
    process.kill()
    process.wait()
    with lab.shared.lock("l", timeout=10.0):
        pass
    process.communicate()  # the child sees the end of its input, and goes


def test_a_lock_that_a_client_waited_for_when_it_died_goes_to_the_next(lab: Lab) -> None:
    holder = lab.shared.lock("l")
    holder.acquire()
    process = run_script(lab, "print('waits', flush=True); shared.lock('l', ttl=1000.0).acquire()")
    assert first_line(process) == "waits\n"
    process.kill()
    process.communicate()
    with pytest.raises(pk.ReplyTimeoutError):
        lab.shared.lock("l", timeout=0.01).acquire()
    holder.release()
    with lab.shared.lock("l", timeout=10.0):
        assert len(lab.shared.locks()) == 1


def test_of_two_hosts_that_with_the_name_server_keeps_the_state(served_at: Any, places: dict[str, str]) -> None:
    """Whoever asks first, and from where: without a setting it is there, and a mistake is said in one line."""
    first = served_at({**places, "host": "h1"}, "-n", "1")
    elsewhere = {name: path + "2" for name, path in places.items()}
    with first.connect() as mesh:
        ns = mesh.settings.ns_address
    second = served_at({**elsewhere, "ns": ns, "host": "h2"}, "--name", "other")
    with second.connect() as mesh:
        mesh["other"].execute("shared.m['a'] = 1")
        assert mesh.shared.describe()["host"] == "h1"
        hosts = {host.name: host for host in mesh.hosts()}
        with pytest.raises(HostError, match="h1 keeps the shared state"):
            mesh.ask_host(hosts["h2"], "start_state", timeout=20)
    with second.connect(state_host="h2") as mesh, pytest.raises(AccessRefusedError, match="set state_host") as refused:
        mesh.shared.get("a")
    assert refused.value.__context__ is None
    assert "\n" not in str(refused.value)
