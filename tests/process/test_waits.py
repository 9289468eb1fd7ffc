"""Whoever asks to wait for what is no time at all waits not at all, and nobody waits in its name."""

from __future__ import annotations

import math
import os
import time

import pytest

import pyrokernel as pk
from pyrokernel.client.calls import ask_kernel
from pyrokernel.messages import bounded


@pytest.mark.parametrize(
    ("asked", "given"), [(math.nan, 0.0), (-1.0, 0.0), (-math.inf, 0.0), (0.5, 0.5), (7, 7.0), (math.inf, 60.0)]
)
def test_a_wait_is_between_none_and_the_most(asked: float, given: float) -> None:
    assert bounded(asked, 60.0) == given


def test_not_a_number_keeps_no_process_busy(mesh: pk.Mesh) -> None:
    (host,) = mesh.hosts()
    kernel = mesh[0]
    cell = kernel.submit("import time; time.sleep(30)")
    pids = [int(mesh.ask_host(host, "describe")["pid"]), mesh.ps()[0].pid, int(mesh.shared.describe()["pid"])]
    assert mesh.ask_host(host, "obituary", "nobody", math.nan) is None
    assert mesh.ask_host(host, "deaths", 10**9, math.nan)["deaths"] == []
    with pytest.raises(pk.PyrokernelError):
        mesh.ask_host(host, "await_kernel", kernel.name, kernel.instance, math.nan)
    with pytest.raises(pk.ReplyTimeoutError):
        ask_kernel(mesh, kernel.link, "reply", cell.id, math.nan)
    last = kernel.describe()["last_seq"]
    assert ask_kernel(mesh, kernel.link, "follow", last, math.nan)["events"] == []
    cell.interrupt()
    before, begun = [_seconds(pid) for pid in pids], time.monotonic()
    time.sleep(1.0)  # over which nobody asks for anything
    for pid, busy in zip(pids, before, strict=True):
        assert _seconds(pid) - busy < 0.5 * (time.monotonic() - begun)


def _seconds(pid: int) -> float:
    """Return the processor time that a process has had."""
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
