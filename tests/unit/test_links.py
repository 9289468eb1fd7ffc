"""Links: connections that are returned late are closed, not kept."""

from __future__ import annotations

import errno
import logging
import os
import socket
import ssl
import threading
from pathlib import Path

import pytest
from certificates import Authority

from pyrokernel.client.links import Link, _Errands, ask_each
from pyrokernel.errors import AccessRefusedError, KernelUnreachableError, MachineLostError
from pyrokernel.wire import silence
from pyrokernel.wire.connection import Connection
from pyrokernel.wire.fanout import Request
from pyrokernel.wire.remote import Credentials, dial
from pyrokernel.wire.tls import TlsSocket
from pyrokernel.wire.trust import Peer


def test_what_is_returned_to_a_closed_link_is_closed() -> None:
    link = Link("k0", "PYRO:k0", "instance")
    for for_good in (False, True):
        near, far = socket.socketpair()
        with far:
            connection = Connection(near, Peer(uid=os.getuid(), pid=os.getpid()))
            link.close(for_good=for_good)
            link.give(connection)
            assert (connection.sock.fileno() < 0) == for_good
    link.close()


def test_what_is_kept_to_a_machine_of_which_nothing_is_heard_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each connection would wait for as long again before it knew: callers were released after 5.6 s."""
    near, far = socket.socketpair()
    with far:
        sock = TlsSocket(near, ssl.create_default_context(), server_hostname="lab2")
        sock.address = "192.0.2.9:9191"
        kept = Connection(sock, Peer(uid=-1))
        link = Link("k0", "PYRO:k0@192.0.2.9:9191", "instance")
        link.give(kept)
        assert link.take("control") is kept
        link.give(kept)
        monkeypatch.setattr(silence, "_silent", {})
        silence.note_dial(sock.address, TimeoutError(errno.ETIMEDOUT, "Connection timed out"))
        with pytest.raises(MachineLostError):
            link.take("control")
        assert near.fileno() < 0


def test_whoever_refuses_us_is_one_that_does_not_answer_and_the_others_do() -> None:
    """Such as a machine whose certificate has expired."""
    link = Link("lab2", "PYRO:pyrokernel.host@10.0.0.1:9191")  # with no identity that could be shown
    answer = ask_each({link: Request("pyrokernel.host", "describe")}, 5.0)["lab2"]
    assert isinstance(answer, AccessRefusedError)


@pytest.mark.parametrize("host", ["a..b", "x" * 70, "x" * 70 + ".example.org", "\ud800"])
def test_what_is_no_address_is_unreachable_and_no_traceback(host: str, tmp_path: Path) -> None:
    credentials = Credentials(Authority(tmp_path).identity("user", "ana"))
    with pytest.raises(KernelUnreachableError, match=r"no address|nobody answers"):
        dial(host, 9191, 1.0, credentials)


def test_errands_are_done_also_after_one_that_raised_what_nobody_expected(caplog: pytest.LogCaptureFixture) -> None:
    errands, done, begun = _Errands(), threading.Event(), threading.Event()

    def fail() -> None:
        begun.wait(10)  # so that both are in one run of the thread
        raise ZeroDivisionError("unexpected")

    with caplog.at_level(logging.DEBUG, "pyrokernel.client.links"):
        errands.put(fail)
        errands.put(done.set)
        begun.set()
        assert done.wait(10)
    assert "ZeroDivisionError: unexpected" in caplog.text
