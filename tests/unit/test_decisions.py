"""What the policy gives to whom, where a plugin takes its time: who waits for it, and who does not."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from waiting import wait_until

from pyrokernel.gateway import decisions, questions
from pyrokernel.gateway.decisions import TOO_LATE, Decisions, Who
from pyrokernel.loop import Loop
from pyrokernel.policy import HOST, Policy, Verdict
from pyrokernel.roles import Role

ANA, SLOW = Who("ana", "user", "k0", "10.0.0.1"), Who("slow", "user", "k0", "10.0.0.1")


class SlowDecider:
    """Has a plugin that hangs when it is asked about one user."""

    has_plugins = True

    def __init__(self) -> None:
        self._policy = Policy()
        self.file_hangs = False
        self.asked: list[str] = []
        self.gate = threading.Event()

    @property
    def policy(self) -> Policy:
        if self.file_hangs:
            self.gate.wait()
        return self._policy

    def ask_plugins(self, user: str, kind: str, kernel: str, address: str) -> Verdict | None:
        self.asked.append(user)
        if user.startswith("slow"):
            self.gate.wait()
        if user == "bad":
            raise RuntimeError("a mistake")
        return Verdict(Role.USER, "plugin") if user != "zoe" else None


class Bench:
    """Decisions in a loop of their own."""

    def __init__(self) -> None:
        self.loop, self.decider = Loop(), SlowDecider()
        self.decisions = Decisions(self.loop, self.decider)  # type: ignore[arg-type]
        self.heard: list[tuple[str, Verdict]] = []
        self.thread = threading.Thread(target=self.loop.run)
        self.thread.start()

    def ask(self, who: Who, *, most: Verdict | None = None, anew: bool = False) -> None:
        def then(verdict: Verdict) -> None:
            self.heard.append((who.user, verdict))

        self.loop.call(lambda: self.decisions.decide(who, f"{who.machine}:1", then, most=most, anew=anew))

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
    monkeypatch.setattr(questions, "ANSWER_SECONDS", 0.05)
    bench.ask(SLOW)
    wait_until(lambda: bench.said("slow") == [TOO_LATE])
    bench.ask(SLOW)  # while the plugin still hangs: at once
    wait_until(lambda: bench.said("slow") == [TOO_LATE, TOO_LATE])
    assert bench.decider.asked.count("slow") == 1
    monkeypatch.setattr(questions, "ANSWER_SECONDS", 60.0)
    bench.decider.gate.set()
    wait_until(lambda: not len(bench.decisions._plugins))
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


LAB2 = Verdict(Role.USER, "[hosts] lab2")


def introduced(user: str) -> Who:
    return ANA._replace(user=user, through="lab2")


def test_names_that_a_host_invents_hold_up_that_host_alone(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "ANSWER_SECONDS", 0.05)
    for number in range(200):
        bench.ask(introduced(f"slow{number}"), most=LAB2)
    bench.ask(introduced("bob"), most=LAB2)
    bench.ask(Who("lab2", HOST, "k0", "10.0.0.1"))
    wait_until(lambda: bench.said("bob") and bench.said("lab2"))
    assert (bench.said("bob"), bench.said("lab2")) == ([TOO_LATE], [TOO_LATE])
    wait_until(lambda: len(bench.decider.asked) == decisions._SHARE)
    monkeypatch.setattr(questions, "ANSWER_SECONDS", 60.0)
    bench.ask(ANA)
    wait_until(lambda: bench.said("ana"))
    assert bench.said("ana")[0].role is Role.USER
    assert len(bench.decider.asked) == decisions._SHARE + 1
    bench.decider.gate.set()
    wait_until(lambda: not len(bench.decisions._plugins))
    bench.ask(introduced("bob"), most=LAB2)
    wait_until(lambda: bench.said("bob")[1:])
    assert bench.said("bob")[1].role is Role.USER


def test_what_waits_for_the_share_of_a_certificate_is_asked_in_turn(bench: Bench) -> None:
    for number in range(100):
        bench.ask(introduced(f"u{number}"), most=LAB2)
    wait_until(lambda: len(bench.heard) == 100)
    assert {verdict.role for _, verdict in bench.heard} == {Role.USER}


def test_the_file_is_looked_at_also_while_every_thread_hangs(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "ANSWER_SECONDS", 60.0)
    for number in range(2 * decisions._THREADS):
        bench.ask(ANA._replace(user=f"slow{number}"))
    wait_until(lambda: len(bench.decider.asked) == decisions._THREADS)
    looked = threading.Event()
    bench.loop.call(lambda: bench.decisions.look_around(looked.set))
    assert looked.wait(20)


def test_a_file_that_hangs_holds_up_no_plugin(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "ANSWER_SECONDS", 60.0)
    bench.decider.file_hangs = True
    looked = threading.Event()
    bench.loop.call(lambda: bench.decisions.look_around(looked.set))
    bench.ask(ANA)
    wait_until(lambda: bench.said("ana"))
    assert not looked.is_set()


def test_of_whom_a_host_introduces_a_plugin_is_asked_without_asking_of_the_host_again(bench: Bench) -> None:
    bench.ask(introduced("ana"), most=Verdict(Role.OBSERVER, "[hosts] lab2"))
    bench.ask(introduced("bob"), most=TOO_LATE)
    wait_until(lambda: len(bench.heard) == 2)
    assert bench.said("ana")[0].role is Role.OBSERVER
    assert bench.said("bob") == [TOO_LATE]
    assert bench.decider.asked == ["ana"]
