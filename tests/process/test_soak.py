"""Thousands of cells with interrupts, two clients and output: nothing lost, nothing mixed up, nothing leaked."""

from __future__ import annotations

import os
import random
import threading

import pytest
from waiting import wait_until

import pyrokernel as pk

WATCH = "import os, threading\nlen(os.listdir('/proc/self/fd')), threading.active_count()"


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("cells", [1000, pytest.param(10_000, marks=pytest.mark.soak)])
def test_no_reply_is_lost_or_mixed_up_and_nothing_leaks(cells: int) -> None:
    seed = random.randrange(1 << 30)
    print("seed", seed)
    with pk.local(2) as mesh:
        before = {name: reply.result for name, reply in mesh[:].execute(WATCH).items()}
        ours = len(os.listdir("/proc/self/fd")), threading.active_count()
        wrong: list[str] = []
        counts = {"ok": 0, "interrupted": 0}
        stop = threading.Event()

        def client(number: int) -> None:
            with pk.connect(settings=mesh.settings) as own:
                for index in range(cells // 4):
                    for kernel in own[:]:
                        token = f"{number}-{index}-{kernel.name}"
                        source = f"print({token!r})\nfor _ in range({index % 7} * 500): pass\n{token!r}"
                        reply = kernel.execute(source, check=False, timeout=60)
                        if reply.status == "ok":
                            counts["ok"] += 1
                            if reply.result != token or reply.stdout != token + "\n":
                                wrong.append(f"{token}: {reply!r} {reply.stdout!r}")
                        elif reply.ename == "KeyboardInterrupt":
                            counts["interrupted"] += 1
                        else:
                            wrong.append(f"{token}: {reply.ename} {reply.evalue}")

        def interrupter() -> None:
            dice = random.Random(seed)
            with pk.connect(settings=mesh.settings) as own:
                while not stop.wait(dice.random() * 0.02):
                    own[dice.randrange(2)].interrupt()

        clients = [threading.Thread(target=client, args=(number,)) for number in range(2)]
        pest = threading.Thread(target=interrupter)
        for thread in [*clients, pest]:
            thread.start()
        for thread in clients:
            thread.join()
        stop.set()
        pest.join()
        assert wrong == []
        assert counts["ok"] + counts["interrupted"] == cells // 4 * 2 * 2
        assert counts["ok"] > 0

        def settled() -> bool:
            now = {name: reply.result for name, reply in mesh[:].execute(WATCH).items()}
            return all(now[name][0] <= before[name][0] + 2 and now[name][1] <= before[name][1] + 2 for name in now)

        wait_until(settled, timeout=30)
        mine = len(os.listdir("/proc/self/fd")), threading.active_count()
        assert mine[0] <= ours[0] + 4
        assert mine[1] == ours[1]
