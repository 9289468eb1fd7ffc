"""Sessions by Telnet, with Debian's inetutils-telnet in pseudo-terminals."""

from __future__ import annotations

import contextlib
import signal
import socket

import pyrokernel as pk
import pytest
from terminal_serving import TELNET, Serve, Server
from terminals import Terminal
from waiting import is_alive, wait_until

pytestmark = [
    pytest.mark.skipif(not TELNET, reason="telnet is not installed (Debian: inetutils-telnet)"),
    pytest.mark.slow,
]

GUEST = ("--telnet", "127.0.0.1:0", "--telnet-as", "guest:user")


def at_prompt(server: Server) -> Terminal:
    """Open a session on k0, and wait for its prompt."""
    terminal = server.telnet()
    terminal.expect("kernels>", 20)
    terminal.enter("use k0")
    terminal.expect("k0>")
    return terminal


def test_a_session_is_a_terminal(serve: Serve, kernel: pk.Kernel) -> None:
    server = serve(options=GUEST)
    kernel.execute("very_long_name = 41")
    terminal = at_prompt(server)
    terminal.enter("'größer → ' + str(6 * 7)")
    terminal.expect("\n'größer → 42'\n")
    terminal.type("very_l")
    terminal.tab("ong_name")
    terminal.enter(" + 1")
    terminal.expect("\n42\n")
    terminal.enter("import time; time.sleep(60)")
    wait_until(lambda: kernel.describe()["running"])
    terminal.type("\x03")
    terminal.expect("k0: interrupted")
    authors = {cell["source"]: cell["author"] for cell in kernel.cells()}
    assert authors["very_long_name + 1"] == "guest"
    terminal.enter("exit")
    terminal.expect("Connection closed")
    wait_until(lambda: not server.children())


def test_the_window_is_that_of_the_client_and_follows_it(serve: Serve) -> None:
    server = serve(options=GUEST)
    terminal = at_prompt(server)
    (pid,) = server.children()
    assert server.size_of(pid) == (30, 100)
    terminal.resize(50, 77)
    wait_until(lambda: server.size_of(pid) == (50, 77))


def test_who_comes_by_telnet_looks_unless_the_operator_says_otherwise(serve: Serve, kernel: pk.Kernel) -> None:
    server = serve(options=("--telnet", "127.0.0.1:0"))
    kernel.execute("untouched = 1")
    terminal = server.telnet()
    terminal.expect("you are telnet, an observer")
    terminal.expect("kernels>", 20)
    terminal.enter("untouched = 2")
    terminal.expect("telnet is an observer here, and `submit` takes a user")
    (session,) = server.who()
    assert (session["user"], session["role"], session["by"]) == ("telnet", "observer", "telnet")
    assert kernel.execute("untouched").result == 1


def test_telnet_beyond_this_machine_is_insisted_on_or_refused(serve: Serve) -> None:
    server = serve()
    done = server.run("serve", "--ssh", "", "--telnet", "0.0.0.0:0")
    assert done.returncode != 0
    assert "would show every key to whoever is on the way" in done.stderr
    server.stop()
    server.start("--telnet", "0.0.0.0:0", "--telnet-in-the-clear")
    wait_until(lambda: "WARNING: Telnet beyond this machine" in server.said.read_text())


def test_a_session_without_a_key_for_long_ends(serve: Serve) -> None:
    server = serve(options=(*GUEST, "--idle", "1.5"))
    terminal = server.telnet()
    terminal.expect("no key was pressed for 1.5 s", 20)
    terminal.wait()
    wait_until(lambda: not server.children())


def test_there_are_so_many_sessions_and_no_more(serve: Serve) -> None:
    server = serve(options=(*GUEST, "--per-user", "1"))
    at_prompt(server)
    other = server.telnet()
    other.expect("you have 1 sessions, and no more at once", 20)
    other.wait()


def test_a_killed_client_leaves_no_process(serve: Serve) -> None:
    server = serve(options=GUEST)
    terminal = at_prompt(server)
    (pid,) = server.children()
    terminal.process.kill()
    wait_until(lambda: not is_alive(pid))


def test_sessions_end_with_the_server_and_are_told(serve: Serve) -> None:
    server = serve(options=GUEST)
    terminal = at_prompt(server)
    (pid,) = server.children()
    assert server.stop() == 0
    terminal.expect("the terminal server ends, and this session with it")
    assert not is_alive(pid)


def test_a_client_that_stops_reading_costs_a_bounded_buffer(serve: Serve, kernel: pk.Kernel) -> None:
    server = serve(options=GUEST)
    terminal, other = at_prompt(server), at_prompt(server)
    terminal.enter("while True: print('x' * 1000)")
    terminal.expect("x" * 1000)
    terminal.process.send_signal(signal.SIGSTOP)
    before = server.memory()
    for number in range(5):
        other.enter(f"on k1 'the other is served {number}'")
        other.expect(f"\n'the other is served {number}'\n")
    kernel.interrupt()
    assert server.memory() - before < 16 << 20
    terminal.process.kill()
    terminal.process.send_signal(signal.SIGCONT)
    wait_until(lambda: len(server.children()) == 1)


def test_a_client_that_only_sends_costs_a_bounded_buffer(serve: Serve, kernel: pk.Kernel) -> None:
    server = serve(options=GUEST)
    with socket.create_connection(("127.0.0.1", server.telnet_port)) as sock:
        sock.settimeout(10)
        wait_until(lambda: server.children(), 20)
        before = server.memory()
        sock.settimeout(1.0)
        assert fill(sock) < 512 << 20
        assert server.memory() - before < 16 << 20
    wait_until(lambda: not server.children())


def fill(sock: socket.socket) -> int:
    """Send until the other side takes no more; return how much it took."""
    sent = 0
    with contextlib.suppress(TimeoutError):
        while sent < 512 << 20:
            sent += sock.send(b"\xff\xf1" + b"(" * 65536)
    return sent
