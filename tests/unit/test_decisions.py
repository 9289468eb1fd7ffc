"""What the policy gives to whom, where a plugin takes its time: who waits for it, and who does not."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from waiting import wait_until

from pyrokernel.gateway import decisions
from pyrokernel.gateway.decisions import TOO_LATE, Decisions, Who
from pyrokernel.loop import Loop
from pyrokernel.policy import Policy, Said, Verdict
from pyrokernel.roles import Role

ANA, SLOW = Who("ana", "user", "k0", "10.0.0.1"), Who("slow", "user", "k0", "10.0.0.1")


class SlowDecider:
    """Has a plugin that hangs when it is asked about one user."""

    has_plugins = True

    def __init__(self) -> None:
        self.policy = Policy()
        self.asked: list[str] = []
        self.gate = threading.Event()

    def ask_plugins(self, user: str, kind: str, kernel: str, address: str, through: str) -> Said:
        self.asked.append(user)
        if user == "slow":
            self.gate.wait()
        if user == "bad":
            raise RuntimeError("a mistake")
        return Said(Verdict(Role.USER, "plugin")) if user != "zoe" else Said()


class Bench:
    """Decisions in a loop of their own."""

    def __init__(self) -> None:
        self.loop, self.decider = Loop(), SlowDecider()
        self.decisions = Decisions(self.loop, self.decider)  # type: ignore[arg-type]
        self.heard: list[tuple[str, Verdict]] = []
        self.thread = threading.Thread(target=self.loop.run)
        self.thread.start()

    def ask(self, who: Who, *, anew: bool = False) -> None:
        def then(verdict: Verdict) -> None:
            self.heard.append((who.user, verdict))

        self.loop.call(lambda: self.decisions.decide(who, f"{who.machine}:1", then, anew=anew))

    def said(self, user: str) -> list[Verdict]:
        return [verdict for whose, verdict in self.heard if whose == user]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(decisions, "HOLD_SECONDS", 60.0)
    made = Bench()
    yield made
    made.decider.gate.set()
    made.loop.stop()
    made.thread.join()
    made.decisions.close()
    wait_until(lambda: not [each for each in threading.enumerate() if each.name == "pyrokernel-policy"])
    made.loop.close()


def test_whom_a_plugin_hangs_about_holds_up_nobody_else(bench: Bench) -> None:
    for _ in range(50):
        bench.ask(SLOW)
    bench.ask(ANA)
    wait_until(lambda: bench.said("ana"))
    assert not bench.said("slow")
    bench.decider.gate.set()
    wait_until(lambda: len(bench.said("slow")) == 50)
    assert {verdict.role for verdict in bench.said("slow")} == {Role.USER}
    assert bench.decider.asked.count("slow") == 1


def test_who_is_not_decided_about_in_time_is_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decisions, "ANSWER_SECONDS", 0.05)
    bench.ask(SLOW)
    wait_until(lambda: bench.said("slow") == [TOO_LATE])
    bench.ask(SLOW)  # while the plugin still hangs: at once
    wait_until(lambda: bench.said("slow") == [TOO_LATE, TOO_LATE])
    assert bench.decider.asked.count("slow") == 1
    monkeypatch.setattr(decisions, "ANSWER_SECONDS", 60.0)
    bench.decider.gate.set()
    wait_until(lambda: not bench.decisions._questions)
    bench.ask(SLOW)
    wait_until(lambda: bench.said("slow")[2:] and bench.said("slow")[2].role is Role.USER)


def test_all_connections_of_one_are_asked_about_once(bench: Bench) -> None:
    for _ in range(100):
        bench.ask(ANA)
    bench.ask(ANA._replace(kernel="k1"))
    wait_until(lambda: len(bench.heard) == 101)
    assert bench.decider.asked == ["ana", "ana"]


def test_where_no_plugin_says_anything_the_file_does_and_a_mistake_lets_nobody_in(bench: Bench) -> None:
    bench.ask(ANA._replace(user="zoe"))
    bench.ask(ANA._replace(user="bad"))
    wait_until(lambda: len(bench.heard) == 2)
    assert bench.said("zoe")[0].role is Role.OBSERVER
    assert bench.said("bad")[0].role is Role.NOBODY
