"""A kernel on its way to ready: what it reported counts, whenever its end is noticed."""

from __future__ import annotations

import os
from typing import Any

from pyrokernel.host.launch import Launch
from pyrokernel.loop import Loop
from pyrokernel.messages import KernelBirth, KernelSpec


def test_a_report_is_read_although_the_loop_has_not_come_to_it() -> None:
    reports: list[dict[str, Any]] = []
    birth = KernelBirth(
        spec=KernelSpec(name="k0").to_wire(), instance="i", mesh="m", host="h", socket="/s", journal_dir="/j"
    )
    loop = Loop()
    launch = Launch(loop, birth, on_born=lambda pid: None, on_ready=reports.append, on_unborn=lambda error: None)
    _, ready = launch.open()
    ready = os.dup(ready)
    launch.handed_over()
    launch.take_report()
    assert reports == []
    os.write(ready, b'{"ok": false, "error": "no such place"}\n')
    os.close(ready)
    launch.take_report()
    assert reports == [{"ok": False, "error": "no such place"}]
    launch.close()
    loop.close()
