"""Requests to several kernels at once, when some of them cannot be asked or die meanwhile."""

from __future__ import annotations

import contextlib
import os
import signal
import time

import pytest
from waiting import wait_until

import pyrokernel as pk
from pyrokernel.client import calls
from pyrokernel.client.links import Link
from pyrokernel.messages import Death
from pyrokernel.wire.connection import Connection


def test_what_arrived_in_time_counts_although_another_kernel_took_all_of_it(
    group: pk.Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = group.names[-1]
    take = Link.take

    def refuse_one(link: Link, kind: str) -> Connection:
        if link.name == away:
            raise pk.KernelUnreachableError("nobody listens", kernel=away)
        return take(link, kind)

    begun = time.monotonic()

    def slow_host(*_: object) -> Death | None:
        wait_until(lambda: time.monotonic() > begun + 0.5)  # past the deadline
        return None

    monkeypatch.setattr(Link, "take", refuse_one)
    monkeypatch.setattr(calls, "obituary", slow_host)
    links = [kernel.link for kernel in group]
    values, errors, missing = calls.gather(
        group.mesh, links, calls.kernel_request("describe"), kind="control", timeout=0.3
    )
    assert (list(values), list(errors), missing) == (group.names[:-1], [away], ())


def test_each_request_is_judged_by_its_own_moment() -> None:
    with pk.local(1) as mesh:
        kernel = mesh[0]
        about = kernel.describe()
        with calls.Exchange(mesh, "control") as exchange:
            exchange.send(kernel.link, calls.kernel_request("follow", about["last_seq"], 30.0, {}), "before")
            os.kill(about["pid"], signal.SIGKILL)

            def named_anew() -> bool:
                with contextlib.suppress(pk.PyrokernelError):
                    return mesh.link_to(kernel.name).instance != kernel.instance
                return False

            wait_until(named_anew)
            exchange.send(kernel.link, calls.kernel_request("ping"), "after")
            errors = {token: error for _, token, _, error in exchange.answers(time.monotonic() + 10)}
    assert isinstance(errors["before"], pk.KernelDiedError)
    assert isinstance(errors["after"], pk.KernelRestartedError)
