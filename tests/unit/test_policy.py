"""The host's decisions: what follows a death, what it is called, and who gets which names and threads."""

from __future__ import annotations

import signal

import pytest

from pyrokernel.errors import NameTakenError, SettingsError
from pyrokernel.host.policy import (
    DEATH_WINDOW_SECONDS,
    MAX_DEATHS,
    THREAD_VARIABLES,
    Asked,
    Ending,
    after_death,
    check_new_names,
    check_spec,
    describe_ending,
    ended_by_request,
    free_names,
    thread_variables,
)
from pyrokernel.messages import KernelSpec

KILLED = Ending(signal=signal.SIGKILL)
FAILED = Ending(exit_code=3)
DONE = Ending(exit_code=0)
UNKNOWN = Ending()


@pytest.mark.parametrize(
    ("policy", "ending", "restarts"),
    [
        ("always", KILLED, True),
        ("always", FAILED, True),
        ("always", DONE, True),
        ("always", UNKNOWN, True),
        ("on-failure", KILLED, True),
        ("on-failure", FAILED, True),
        ("on-failure", DONE, False),
        ("on-failure", UNKNOWN, True),
        ("never", KILLED, False),
        ("never", DONE, False),
    ],
)
def test_the_policy_decides_about_deaths_nobody_asked_for(policy: str, ending: Ending, restarts: bool) -> None:
    verdict = after_death(KernelSpec(name="k", restart=policy), ending, Asked.NOT, [100.0], 100.0)
    assert verdict.restart is restarts
    assert verdict.given_up == ""


@pytest.mark.parametrize("policy", ["always", "on-failure", "never"])
def test_what_was_asked_for_beats_the_policy(policy: str) -> None:
    spec = KernelSpec(name="k", restart=policy)
    assert not after_death(spec, KILLED, Asked.STOP, [], 0.0).restart
    assert after_death(spec, DONE, Asked.RESTART, [], 0.0).restart


def test_a_kernel_that_reached_its_idle_limit_stays_down() -> None:
    spec = KernelSpec(name="k", idle_stop=60)
    assert ended_by_request(Asked.NOT, DONE, spec)
    assert not after_death(spec, DONE, Asked.NOT, [], 0.0).restart
    assert after_death(spec, KILLED, Asked.NOT, [0.0], 0.0).restart


def test_one_accident_costs_no_pause_and_a_loop_is_slowed() -> None:
    spec = KernelSpec(name="k")
    pauses = [after_death(spec, KILLED, Asked.NOT, [float(at) for at in range(n)], n).pause for n in range(1, 6)]
    assert pauses[0] == 0
    assert pauses == sorted(pauses)
    assert pauses[-1] <= 1


def test_a_kernel_that_keeps_dying_is_given_up_and_told_how_to_go_on() -> None:
    spec = KernelSpec(name="camera")
    assert after_death(spec, KILLED, Asked.NOT, [1.0] * MAX_DEATHS, 1.0).restart
    verdict = after_death(spec, KILLED, Asked.NOT, [1.0] * (MAX_DEATHS + 1), 1.0)
    assert not verdict.restart
    assert verdict.given_up.endswith("mend the cause, then restart it")


def test_deaths_of_long_ago_are_forgiven() -> None:
    now = 1000.0
    long_ago = [now - DEATH_WINDOW_SECONDS - 1] * MAX_DEATHS
    assert after_death(KernelSpec(name="k"), KILLED, Asked.NOT, [*long_ago, now], now).pause == 0


@pytest.mark.parametrize(
    ("ending", "asked", "words"),
    [
        (Ending(signal=signal.SIGSEGV, peak_memory_bytes=3 * 2**20), Asked.NOT, ["SIGSEGV", "3 MiB"]),
        (KILLED, Asked.NOT, ["SIGKILL", "memory ran out"]),
        (KILLED, Asked.RESTART, ["SIGKILL", "a restart was asked for"]),
        (FAILED, Asked.NOT, ["code 3"]),
        (DONE, Asked.STOP, ["code 0", "a stop was asked for"]),
        (UNKNOWN, Asked.NOT, ["only the host that started it"]),
        (UNKNOWN, Asked.STOP, ["ended, because a stop"]),
        (Ending(signal=99), Asked.NOT, ["signal 99"]),
    ],
)
def test_a_cause_of_death_is_a_sentence(ending: Ending, asked: Asked, words: list[str]) -> None:
    text = describe_ending(ending, asked)
    assert all(word in text for word in words), text


def test_a_kill_that_was_asked_for_is_not_blamed_on_memory() -> None:
    assert "memory ran out" not in describe_ending(KILLED, Asked.STOP)


@pytest.mark.parametrize(
    "spec",
    [
        KernelSpec(name="two words"),
        KernelSpec(name=""),
        KernelSpec(name="../up"),
        KernelSpec(name="k", tags=("a b",)),
        KernelSpec(name="k", restart="sometimes"),
        KernelSpec(name="k", memory_bytes=-1),
        KernelSpec(name="k", idle_stop=-1.0),
    ],
)
def test_a_spec_that_cannot_be_used_is_refused(spec: KernelSpec) -> None:
    with pytest.raises(SettingsError):
        check_spec(spec)


def test_a_name_belongs_to_one_kernel() -> None:
    specs = [KernelSpec(name="a"), KernelSpec(name="b")]
    check_new_names(specs, {"c": "1"})
    with pytest.raises(NameTakenError) as caught:
        check_new_names(specs, {"b": "0123456789abcdef"})
    assert "0123456789abcdef" in caught.value.holder
    with pytest.raises(SettingsError, match="two kernels"):
        check_new_names([*specs, KernelSpec(name="a")], {})


def test_free_names_fill_the_gaps() -> None:
    assert free_names(3, {"k0", "k2", "camera"}) == ["k1", "k3", "k4"]
    assert free_names(2, (), "worker") == ["worker0", "worker1"]


def test_threads_are_shared_out() -> None:
    assert set(thread_variables(KernelSpec(name="k"), 8, 4, {}).items()) == {(name, "2") for name in THREAD_VARIABLES}
    assert set(thread_variables(KernelSpec(name="k"), 2, 8, {}).values()) == {"1"}
    assert set(thread_variables(KernelSpec(name="k", threads=6), 2, 8, {}).values()) == {"6"}


def test_threads_that_the_user_set_are_left_alone() -> None:
    environ = {"OMP_NUM_THREADS": "3"}
    assert "OMP_NUM_THREADS" not in thread_variables(KernelSpec(name="k"), 8, 4, environ)
    assert thread_variables(KernelSpec(name="k", threads=1), 8, 4, environ)["OMP_NUM_THREADS"] == "1"
    spec = KernelSpec(name="k", threads=1, env={"OMP_NUM_THREADS": "5"})
    assert "OMP_NUM_THREADS" not in thread_variables(spec, 8, 4, environ)
