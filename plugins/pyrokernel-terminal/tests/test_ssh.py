"""Sessions by SSH, with Debian's OpenSSH client in pseudo-terminals."""

from __future__ import annotations

import signal
import socket
import subprocess
from pathlib import Path

import openssh
import pyrokernel as pk
import pytest
from terminal_serving import Serve, Server
from terminals import Terminal
from waiting import is_alive, wait_until

pytestmark = [openssh.needs_client, pytest.mark.slow]


def test_a_session_is_a_terminal(serve: Serve, kernel: pk.Kernel) -> None:
    server = serve("ana")
    shown = bytearray()
    terminal = server.at_prompt("ana")
    terminal._feed = shown.extend if terminal._feed is None else (lambda data: shown.extend(data))
    terminal.enter("'größer → ' + str(6 * 7)")
    terminal.expect("\n'größer → 42'\n")
    kernel.execute("very_long_name = 41")
    terminal.type("very_l")
    terminal.tab("ong_name")
    terminal.enter(" + 1")
    terminal.expect("\n42\n")
    terminal.enter("print('\\x1b[31mred\\x1b[0m')")
    terminal.expect("\nred\n")
    assert b"\x1b[31mred" in shown
    terminal.enter("import time; time.sleep(60)")
    wait_until(lambda: kernel.describe()["running"])
    terminal.type("\x03")
    terminal.expect("k0: interrupted")
    terminal.enter("exit")
    assert terminal.wait() == 0
    wait_until(lambda: not server.children())


def test_the_window_is_that_of_the_client_and_follows_it(serve: Serve) -> None:
    server = serve("ana")
    terminal = server.at_prompt("ana", size=(30, 100))
    (pid,) = server.children()
    assert server.size_of(pid) == (30, 100)
    terminal.resize(50, 77)
    wait_until(lambda: server.size_of(pid) == (50, 77))
    terminal.resize(1000, 5000)
    wait_until(lambda: server.size_of(pid) == (500, 1000))


def test_a_command_runs_and_its_exit_code_comes_back(serve: Serve) -> None:
    server = serve("ana")
    done = server.once("ana", "on k0 print('hello'); import sys; print('beside', file=sys.stderr)")
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello\n", "beside\n")
    assert server.once("ana", "1 / 0").returncode == 1
    piped = server.once("ana", text="use k0\ndef f():\n    return 6 * 7\n\nf()\n")
    assert (piped.returncode, piped.stdout.splitlines()[-1]) == (0, "42")
    refused = server.once("ana", "here open('/tmp/x', 'w')")
    assert refused.returncode == 1
    assert "is not in this shell" in refused.stderr
    ends = [line["code"] for line in server.record() if line["event"] == "end"]
    assert ends == [0, 1, 0, 1]


def test_two_users_share_a_kernel_and_see_who_did_what(serve: Serve, mesh: pk.Mesh, kernel: pk.Kernel) -> None:
    server = serve("ana", "bob")
    ana, bob = server.at_prompt("ana"), server.at_prompt("bob")
    ana.enter("shared.m['unlikely'] = 'from ana'; 'stored'")
    ana.expect("\n'stored'\n")
    bob.type("shared.m['un")
    bob.tab("likely")
    bob.enter("']")
    bob.expect("\n'from ana'\n")
    bob.enter("shared history unlikely")
    bob.expect("k0, ana")
    bob.enter("watch on")
    bob.expect("watch is on")
    ana.enter("print('seen by ' + 'bob')")
    ana.expect("\nseen by bob\n")
    bob.expect("ana")
    bob.expect("ran print('seen by ' + 'bob')")
    authors = {cell["source"]: cell["author"] for cell in kernel.cells()}
    assert authors["print('seen by ' + 'bob')"] == "ana"
    assert authors["shared.m['unlikely']"] == "bob"
    mesh.shared.clear()


def test_an_observer_looks_and_runs_nothing(serve: Serve, kernel: pk.Kernel, mesh: pk.Mesh) -> None:
    server = serve("eve:observer")
    kernel.execute("untouched = 1")
    eve = server.at_prompt("eve")
    eve.enter("untouched = 2")
    eve.expect("eve is an observer here, and `submit` takes a user")
    eve.expect("`pyrokernel terminal add eve --role user`")
    eve.enter("who")
    eve.expect("untouched")
    assert kernel.execute("untouched").result == 1


def test_nobody_comes_in_without_a_key_of_theirs(serve: Serve, tmp_path: Path) -> None:
    server = serve("ana")
    stranger = openssh.make_key(tmp_path / "stranger")
    for user, key in (("ana", stranger), ("bob", server.folder / "key-ana"), ("root", stranger)):
        assert server.once(user, "1", key=key).returncode == 255
    offered = subprocess.run(
        [*openssh.command(server.ssh_port, "ana", None, "1", options=("-v", "-o", "LogLevel=DEBUG"))],
        capture_output=True, text=True, timeout=40, check=False,
    )  # fmt: skip
    assert offered.returncode == 255
    assert "Authentications that can continue: publickey\n" in offered.stderr
    assert not server.children()
    refused = [line for line in server.record() if line["event"] == "refused"]
    assert [line["user"] for line in refused][:3] == ["ana", "bob", "root"]


def test_what_a_stranger_calls_itself_gives_no_orders_to_who_reads_the_record(serve: Serve) -> None:
    server = serve("ana")
    assert server.once("\x1b[2Jeve\x07", "1", key=server.folder / "key-ana").returncode == 255
    path = server.mesh.settings.mesh_state_dir / "terminal" / "sessions.log"
    assert b"\x1b" not in path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "options", [("-R", "0:127.0.0.1:9"), ("-R", "/tmp/pk-forwarded.sock:127.0.0.1:9")], ids=["port", "socket"]
)
def test_nothing_is_forwarded_to_the_client(serve: Serve, options: tuple[str, ...]) -> None:
    server = serve("ana")
    done = server.once("ana", "1", options=("-o", "ExitOnForwardFailure=yes", *options))
    assert done.returncode == 255


def test_nothing_is_forwarded_from_the_client(serve: Serve) -> None:
    server = serve("ana")
    done = server.once("ana", options=("-W", f"127.0.0.1:{server.ssh_port}"))
    assert done.returncode != 0
    assert "SSH-2.0" not in done.stdout
    agent = server.once("ana", "on k0 import os; 'SSH_AUTH_SOCK' in os.environ", options=("-A", "-X"))
    assert agent.stdout == "False\n"


def test_no_files_are_copied(serve: Serve, tmp_path: Path) -> None:
    server = serve("ana")
    line = server.command("ana")
    options, made = line[1 : line.index("-p")], tmp_path / "made"
    (tmp_path / "source").write_text("x")
    for old in ((), ("-O",)):
        copy = ["scp", *options, *old, "-P", str(server.ssh_port), str(tmp_path / "source"), f"ana@127.0.0.1:{made}"]
        assert subprocess.run(copy, capture_output=True, timeout=40, check=False).returncode != 0
    assert server.once("ana", "sftp", options=("-s",)).returncode != 0
    assert server.once("ana", "other", options=("-s",)).returncode != 0
    assert not made.exists()


def test_what_a_client_sends_along_stays_outside(serve: Serve) -> None:
    server = serve("eve:observer")
    sent = ("PYROKERNEL_ACT_FOR=root:admin", "PYTHONINSPECT=1", "PYTHONPATH=/tmp/evil", "LD_PRELOAD=x", "LANG=de_DE")
    eve = server.ssh("eve", options=("-t", *(word for one in sent for word in ("-o", f"SetEnv={one}"))))
    told = eve.expect("kernels>", 20)
    assert told.count("you are eve, an observer") == 1
    (pid,) = server.children()
    environ = Path(f"/proc/{pid}/environ").read_bytes()
    assert not [one for one in sent if one.encode() in environ]
    assert b"\0PYROKERNEL_ACT_FOR=\0" in environ


def test_there_are_so_many_sessions_and_no_more(serve: Serve) -> None:
    server = serve("ana", "bob", "eve", options=("--sessions", "3", "--per-user", "2"))
    for _ in range(2):
        server.at_prompt("ana")
    done = server.once("ana", "1")
    assert done.returncode == 1
    assert "you have 2 sessions, and no more at once" in done.stderr
    last = server.at_prompt("bob")
    assert "there are 3 sessions" in server.once("eve", "1").stderr
    last.enter("exit")
    last.wait()
    wait_until(lambda: len(server.children()) == 2)
    assert server.once("eve", "on k0 1 + 1").stdout == "2\n"


def test_who_tells_who_is_connected(serve: Serve) -> None:
    server = serve("ana", "eve:observer")
    assert server.run("who").stdout == "nobody is connected\n"
    server.at_prompt("eve")
    ana = server.at_prompt("ana")
    found = {one["user"]: one for one in server.who()}
    assert found.keys() == {"ana", "eve"}
    assert (found["eve"]["role"], found["eve"]["by"]) == ("observer", "ssh")
    assert found["eve"]["from"].startswith("127.0.0.1:")
    assert found["eve"]["idle"] >= found["ana"]["idle"]
    assert {one["pid"] for one in found.values()} == server.children()
    ana.enter("users")
    ana.expect("USER  ROLE")
    ana.expect("observer  ssh")
    assert server.stop() == 0
    assert server.run("who").stdout.startswith("no terminal server runs on this machine")


def test_a_session_without_a_key_for_long_ends(serve: Serve) -> None:
    server = serve("ana", options=("--idle", "1.5"))
    ana = server.ssh("ana")
    ana.expect("no key was pressed for 1.5 s: this session ends", 20)
    assert ana.wait() == 1
    wait_until(lambda: not server.children())
    assert server.record()[-1]["why"].startswith("no key was pressed")


def test_a_killed_client_leaves_no_process_and_what_it_ran_goes_on(serve: Serve, kernel: pk.Kernel) -> None:
    server = serve("ana")
    ana = server.at_prompt("ana")
    ana.enter("import time; time.sleep(3); survived = True")
    wait_until(lambda: kernel.describe()["running"])
    (pid,) = server.children()
    ana.process.kill()
    wait_until(lambda: not is_alive(pid))
    assert kernel.execute("survived").result is True
    wait_until(lambda: server.record()[-1]["why"] == "the client has gone")


def test_sessions_end_with_the_server_and_are_told(serve: Serve) -> None:
    server = serve("ana")
    ana = server.at_prompt("ana")
    (pid,) = server.children()
    assert server.process is not None
    server.process.send_signal(signal.SIGTERM)
    ana.expect("the terminal server ends, and this session with it")
    ana.wait()
    assert server.process.wait(20) == 0
    assert not is_alive(pid)


def test_sessions_end_with_a_server_that_is_killed(serve: Serve) -> None:
    server = serve("ana")
    ana = server.at_prompt("ana")
    (pid,) = server.children()
    assert server.process is not None
    server.process.kill()
    wait_until(lambda: not is_alive(pid))
    ana.wait()
    server.process.wait()
    server.start()
    assert server.once("ana", "on k0 'back'").stdout == "'back'\n"


def test_ctrl_c_does_not_wait_behind_keys_that_nobody_takes(serve: Serve, kernel: pk.Kernel) -> None:
    server = serve("ana")
    ana = server.at_prompt("ana")
    ana.enter("import time; time.sleep(50)")
    wait_until(lambda: kernel.describe()["running"])
    for _ in range(40):
        ana.type("\n" * 500)
    ana.type("\x03")
    wait_until(lambda: not kernel.describe()["running"])


def test_who_is_taken_off_the_list_is_out(serve: Serve) -> None:
    server = serve("ana", "bob")
    ana, bob = server.at_prompt("ana"), server.at_prompt("bob")
    assert server.run("remove", "ana").returncode == 0
    ana.expect("you may no longer be here as you were")
    ana.wait()
    server.add("bob", "observer")
    bob.expect("you may no longer be here as you were")
    assert server.once("ana", "1").returncode == 255


def test_a_key_that_is_taken_away_is_out_and_another_of_the_same_user_is_not(serve: Serve, tmp_path: Path) -> None:
    server = serve("ana")
    other = openssh.make_key(tmp_path / "other")
    assert server.run("add", "ana", f"{other}.pub").returncode == 0
    lost, kept = server.ssh("ana"), openssh.terminal(server.command("ana", options=("-t",), key=other))
    for one in (lost, kept):
        one.expect("you are ana")
    assert server.run("remove", "ana", f"{tmp_path / 'key-ana'}.pub").returncode == 0
    lost.expect("you may no longer be here as you were")
    assert server.once("ana", "1").returncode == 255
    kept.expect("kernels>", 20)
    kept.close()
    assert "has no key of" in server.run("remove", "ana", f"{tmp_path / 'key-ana'}.pub").stderr


def test_who_logs_in_and_opens_no_session_is_turned_away(serve: Serve) -> None:
    server = serve("ana", options=("--per-user", "2"))
    line = server.command("ana", options=("-N",))
    idle = [subprocess.Popen(line, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(4)]
    try:
        wait_until(lambda: sum(one.poll() is not None for one in idle) == 2, 15)
        assert server.once("ana", "on k0 'in'").stdout == "'in'\n"
    finally:
        for one in idle:
            one.kill()
            one.wait()


def test_what_ends_leaves_no_traceback(serve: Serve) -> None:
    server = serve("ana")
    assert server.once("ana", "on k0 1").returncode == 0
    killed, left, last = (server.ssh("ana") for _ in range(3))
    for one in (killed, left, last):
        one.expect("you are ana")
    killed.process.kill()
    left.expect("kernels>", 20)
    left.enter("exit")
    left.wait()
    wait_until(lambda: len(server.children()) == 1)
    assert server.stop() == 0
    assert [line for line in server.said.read_text().splitlines() if not line.startswith("terminal: ")] == []


def flood(terminal: Terminal) -> None:
    """Have a kernel print until it is interrupted."""
    terminal.enter("while True: print('x' * 1000)")
    terminal.expect("x" * 1000)


def test_a_client_that_stops_reading_costs_a_bounded_buffer(serve: Serve, kernel: pk.Kernel) -> None:
    server = serve("ana", "bob")
    assert server.process is not None
    ana, bob = server.at_prompt("ana"), server.at_prompt("bob")
    flood(ana)
    ana.process.send_signal(signal.SIGSTOP)
    before = server.memory()
    for number in range(5):
        bob.enter(f"on k1 'bob is served {number}'")
        bob.expect(f"\n'bob is served {number}'\n")
    kernel.interrupt()
    assert server.memory() - before < 16 << 20
    ana.process.kill()
    ana.process.send_signal(signal.SIGCONT)
    wait_until(lambda: len(server.children()) == 1)


def test_silent_strangers_keep_nobody_out(serve: Serve) -> None:
    server = serve("ana")
    silent = [socket.create_connection(("127.0.0.1", server.ssh_port)) for _ in range(200)]
    try:
        assert server.once("ana", "on k0 'in'").stdout == "'in'\n"
        # All but a few were turned away, and those will be.
        wait_until(lambda: sum(has_ended(one) for one in silent) >= 160)
    finally:
        for one in silent:
            one.close()


def has_ended(sock: socket.socket) -> bool:
    sock.setblocking(False)
    try:
        while sock.recv(4096):
            pass
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def test_the_host_key_is_kept_and_is_nobody_elses(serve: Serve) -> None:
    server = serve("ana")
    path = server.mesh.settings.mesh_state_dir / "terminal" / "ssh_host_ed25519_key"
    assert path.stat().st_mode & 0o777 == 0o600
    first = path.read_bytes()
    server.stop()
    server.start()
    assert path.read_bytes() == first
    server.stop()
    path.chmod(0o644)
    done = server.run("serve", "--ssh", "127.0.0.1:0")
    assert done.returncode != 0
    assert "others can read" in done.stderr
    path.chmod(0o600)


def test_one_server_serves_a_mesh(serve: Serve) -> None:
    server = serve("ana")
    done = server.run("serve", "--ssh", "127.0.0.1:0")
    assert done.returncode != 0
    assert "another terminal server of mesh" in done.stderr
    assert "another name" not in done.stderr, "it has none"
    assert server.once("ana", "on k0 1").stdout == "1\n"


def test_an_address_at_which_nobody_can_listen_is_named_with_its_option(mesh: pk.Mesh, tmp_path: Path) -> None:
    server = Server(mesh, tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        at = f"127.0.0.1:{taken.getsockname()[1]}"
        for words in (["--ssh", at], ["--ssh", "", "--telnet", at]):
            assert f"{words[-2]} {at}: Address already in use; give an address of" in server.run(*words).stderr
    assert "--ssh 192.0.2.1:8022: Cannot assign" in server.run("--ssh", "192.0.2.1:8022").stderr
    assert "--role is that of one user" in server.run("--role", "user").stderr


def test_a_server_without_a_mesh_says_so_and_serves(mesh: pk.Mesh, tmp_path: Path) -> None:
    server = Server(mesh, tmp_path)
    server.environ |= {"PYROKERNEL_MESH": "none-of-that-name", "PYROKERNEL_NS": ""}
    server.start()
    wait_until(lambda: "WARNING: " in server.said.read_text())
    assert "mesh 'none-of-that-name' is not running on this machine; start it: pyrokernel" in server.said.read_text()
    assert server.stop() == 0


def test_words_of_the_operator_come_first_and_order_nothing(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "banner").write_text("Welcome to the lab\n\x1b]0;title\x07\n")
    server = serve("ana", options=("--banner", str(tmp_path / "banner")))
    ana = server.ssh("ana")
    told = ana.expect("you are ana, a user")
    assert "Welcome to the lab" in told
    assert "\\x1b]0;title\\x07" in told
