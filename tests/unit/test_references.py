"""The table of references: leases, expiry, revocation, and that objects are let go."""

from __future__ import annotations

import concurrent.futures
import gc
import random
import signal
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from waiting import wait_until

from pyrokernel.errors import ReferenceGoneError, SettingsError
from pyrokernel.kernel import references
from pyrokernel.kernel.operations import Operation
from pyrokernel.kernel.references import References, public_id
from pyrokernel.kernel.yielding import Yields
from pyrokernel.messages import LEASE_SECONDS
from pyrokernel.wire.exposing import expose


class Thing:
    """An object that can be lent."""

    def use(self) -> int:
        return 1

    @expose
    def marked(self) -> int:
        return 2


class Clock:
    """Monotonic seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def table(clock: Clock) -> References:
    return References("k0", "0123456789abcdef", clock=clock, stall=float("inf"))


def lend(table: References, value: object, holder: str = "a") -> str:
    """Lend an object; return its token."""
    return table.lend(value, shown="thing", holder=holder).token


def test_a_token_cannot_be_guessed_and_lists_do_not_tell_it(table: References) -> None:
    tokens = {lend(table, Thing()) for _ in range(100)}
    assert len(tokens) == 100
    assert all(len(token) >= 22 for token in tokens)  # 128 bits in base 64
    listed = repr(table.listing())
    assert not [token for token in tokens if token in listed]
    assert {info.id for info in table.listing()} == {public_id(token) for token in tokens}


def test_an_entry_ends_when_nobody_renews_it(table: References, clock: Clock) -> None:
    token = lend(table, Thing())
    clock.now += LEASE_SECONDS - 1
    assert table.renew([token], LEASE_SECONDS, "a") == [True]
    clock.now += LEASE_SECONDS - 1
    table.find(token)
    clock.now += 2
    with pytest.raises(ReferenceGoneError, match="nobody renewed it"):
        table.find(token)
    assert table.renew([token], LEASE_SECONDS, "a") == [False]


def test_one_of_two_clients_keeps_an_entry(table: References, clock: Clock) -> None:
    thing = Thing()
    token = lend(table, thing, "a")
    assert lend(table, thing, "b") == token
    table.give_back({token: 1}, "a")
    table.find(token)
    table.give_back({token: 1}, "b")
    with pytest.raises(ReferenceGoneError, match="released"):
        table.find(token)


def test_what_was_lent_again_meanwhile_is_not_given_back(table: References) -> None:
    thing = Thing()
    token = lend(table, thing)
    lend(table, thing)  # the answer is on its way while the first handle is collected
    table.give_back({token: 1}, "a")
    table.find(token)
    table.give_back({token: 2}, "a")
    assert len(table) == 0


def test_a_lease_is_never_shortened_and_never_long(table: References, clock: Clock) -> None:
    token = lend(table, Thing())
    table.renew([token], 1.0, "a")
    clock.now += 30
    table.find(token)
    table.renew([token], 1e9, "a")
    clock.now += references.MAX_LEASE_SECONDS + 1
    with pytest.raises(ReferenceGoneError):
        table.find(token)


def test_an_object_is_let_go_when_its_entry_ends(table: References, clock: Clock) -> None:
    thing = Thing()
    seen = weakref.ref(thing)
    lend(table, thing)
    del thing
    gc.collect()
    assert seen() is not None
    clock.now += LEASE_SECONDS + 1
    assert len(table) == 0
    table.bury()
    assert seen() is None


def test_what_ends_is_buried_by_somebody_else(clock: Clock) -> None:
    told = threading.Event()
    table = References("k0", "0123456789abcdef", told.set, clock, stall=float("inf"))
    token = lend(table, Thing())
    table.give_back({token: 1}, "a")
    assert told.is_set()
    assert table.has_remains
    table.bury()
    assert not table.has_remains


def test_a_process_that_stood_still_gives_its_clients_the_time_to_renew(clock: Clock) -> None:
    table = References("k0", "0123456789abcdef", clock=clock)
    token = lend(table, Thing())
    url = table.share(token, seconds=100, exposed=False)
    clock.now += 10 * LEASE_SECONDS
    table.find(token)
    with pytest.raises(ReferenceGoneError, match="expired"):  # that is a promise, and no lease
        table.find(url.token)
    clock.now += LEASE_SECONDS + 1
    with pytest.raises(ReferenceGoneError, match="nobody renewed"):
        table.find(token)


def test_an_entry_that_nobody_holds_is_not_taken_for_a_process_that_stood_still(clock: Clock) -> None:
    table = References("k0", "0123456789abcdef", clock=clock)
    pinned = lend(table, Thing())
    table.pin(pinned, "m.camera")
    table.give_back({pinned: 1}, "a")
    held = lend(table, Thing())
    clock.now += LEASE_SECONDS + 1
    table.unpin("m.camera")
    for token in (pinned, held):
        with pytest.raises(ReferenceGoneError, match="nobody renewed"):
            table.find(token)


def test_nobody_has_to_ask_for_an_entry_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(references, "LEASE_SECONDS", 0.05)
    told = threading.Event()
    table = References("k0", "0123456789abcdef", told.set)
    lend(table, Thing())
    assert told.wait(10)
    wait_until(lambda: not table._sweeping)
    lend(table, Thing())  # and the thread is there again when it is needed


def test_a_url_lives_until_it_expires_whoever_holds_it(table: References, clock: Clock) -> None:
    handle = lend(table, Thing())
    entry = table.share(handle, seconds=3600, exposed=False)
    table.give_back({handle: 1}, "a")
    clock.now += 3599
    assert table.find(entry.token) is entry
    clock.now += 2
    with pytest.raises(ReferenceGoneError, match="expired"):
        table.find(entry.token)


def test_what_is_reached_by_a_url_ends_with_it(table: References, clock: Clock) -> None:
    url = table.share(lend(table, Thing()), seconds=100, exposed=False)
    reached = table.lend(Thing(), shown="part", holder="b", under=url)
    assert reached.restricted
    deeper = table.lend(Thing(), shown="part", holder="b", under=table.find(reached.token))
    assert table.revoke(url.id) == 3
    for token in (url.token, reached.token, deeper.token):
        with pytest.raises(ReferenceGoneError, match="revoked"):
            table.find(token)


def test_what_is_reached_by_a_url_cannot_outlive_it(table: References, clock: Clock) -> None:
    url = table.share(lend(table, Thing()), seconds=100, exposed=False)
    reached = table.lend(Thing(), shown="part", holder="b", under=url)
    for _ in range(3):
        clock.now += 40
        table.renew([reached.token], LEASE_SECONDS, "b")
    with pytest.raises(ReferenceGoneError, match="expired"):
        table.find(reached.token)


def test_the_same_object_by_other_rules_is_another_entry(table: References) -> None:
    thing = Thing()
    handle = lend(table, thing)
    first, second = (table.share(handle, seconds=100, exposed=False) for _ in range(2))
    tokens = {table.lend(thing, shown="", holder="b", under=entry).token for entry in (first, second)}
    assert len(tokens | {handle, first.token, second.token}) == 5


def test_a_pinned_entry_needs_no_holder(table: References, clock: Clock) -> None:
    token, other = lend(table, Thing()), lend(table, Thing())
    table.pin(token, "m.camera")
    clock.now += 10 * LEASE_SECONDS
    assert table.find(token).pins == {"m.camera"}
    assert table.unpin("m.nothing") is False
    other = lend(table, Thing())
    table.pin(other, "m.camera")  # as a key of the shared state that is set anew
    with pytest.raises(ReferenceGoneError):
        table.find(token)
    assert table.unpin("m.camera") is True
    table.find(other)


def test_a_restricted_entry_is_not_shared_further(table: References) -> None:
    url = table.share(lend(table, Thing()), seconds=100, exposed=False)
    with pytest.raises(SettingsError, match="mail the URL itself"):
        table.share(url.token, seconds=100, exposed=False)


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_a_url_has_a_future(table: References, seconds: float) -> None:
    with pytest.raises(SettingsError):
        table.share(lend(table, Thing()), seconds=seconds, exposed=False)


def test_a_published_entry_is_found_by_its_name_until_it_is_revoked(table: References) -> None:
    entry = table.publish("stage", Thing())
    assert entry.rules is not None
    assert entry.rules.exposed
    with pytest.raises(SettingsError, match="already"):
        table.publish("stage", Thing())
    table.revoke(entry.token, "it is published no longer")
    with pytest.raises(ReferenceGoneError, match="no longer"):
        table.find(entry.token)


def test_an_unknown_token_leads_nowhere(table: References) -> None:
    with pytest.raises(ReferenceGoneError, match="lent nothing"):
        table.find("x" * 24)


def test_a_listing_says_what_each_is(table: References, clock: Clock) -> None:
    token = lend(table, Thing())
    url = table.share(token, seconds=100, exposed=True, by="ada")
    table.pin(lend(table, Thing()), "m.x")
    handle, mailed, shared = table.listing()
    assert (handle.kind, handle.holders, handle.left, handle.expires) == ("handle", 1, LEASE_SECONDS, 0.0)
    assert (mailed.kind, mailed.by, mailed.exposed, mailed.left) == ("url", "ada", True, 0.0)
    assert mailed.id == public_id(url.token)
    assert mailed.expires > mailed.created
    assert (shared.kind, shared.pins) == ("shared", ("m.x",))


def test_many_threads_at_once_lose_nothing(table: References) -> None:
    things = [Thing() for _ in range(20)]
    failures: list[BaseException] = []

    def work(name: str) -> None:
        try:
            for _ in range(50):
                for thing in things:
                    lent = table.lend(thing, shown="", holder=name)
                    table.renew([lent.token], LEASE_SECONDS, name)
                    table.give_back({lent.token: lent.times}, name)
        except BaseException as error:  # noqa: BLE001  it belongs to another thread
            failures.append(error)

    threads: list[threading.Thread] = [threading.Thread(target=work, args=(f"c{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(table) == 0


EACH_USE: list[Callable[[References], object]] = [
    lambda table: table.renew(["nothing"], 1.0, "a"),
    lambda table: table.give_back({"nothing": 1}, "a"),
    lambda table: table.revoke("nothing"),
    lambda table: table.listing(),
]


@pytest.mark.parametrize("use", EACH_USE)
def test_a_token_that_nobody_knows_does_no_harm(table: References, use: Callable[[References], object]) -> None:
    token = lend(table, Thing())
    use(table)
    assert table.find(token).shown == "thing"


def test_what_a_url_reaches_as_it_expires_is_not_lent_without_its_rules(table: References, clock: Clock) -> None:
    class Slow:
        def use(self) -> Thing:
            clock.now += 20
            len(table)  # which sees to what is due, as its thread does
            return Thing()

    url = table.share(lend(table, Slow()), seconds=10, exposed=False, by="")
    asked = {"ref": url.token, "op": "call", "member": "use"}
    operation = Operation(table, asked, holder="a", by="", variables={}, max_bytes=1000)
    value = operation()
    assert operation.restricted
    with pytest.raises(ReferenceGoneError, match="expired"):
        operation.lend(value)
    assert "Thing" not in [entry.type for entry in table.listing()]


def test_what_is_given_back_as_it_is_pinned_stays_or_is_said_to_be_gone(table: References) -> None:
    token = lend(table, Thing())
    unpin = table.unpin

    def slow_unpin(name: str, but: references.Entry | None = None) -> bool:
        giving = threading.Thread(target=table.give_back, args=({token: 1}, "a"))
        giving.start()
        giving.join(0.05)
        return unpin(name, but)

    table.unpin = slow_unpin  # type: ignore[method-assign]
    table.pin(token, "name")
    assert table.pinned() == {"name": token}


@pytest.mark.parametrize(
    ("make", "step", "lock"),
    [
        (
            lambda: References("k0", "0" * 16),
            lambda table: table.lend(Thing, shown="thing", holder="a"),
            lambda table: table._lock,
        ),
        (lambda: Yields(1000, pauses=True), lambda yields: yields.put(1), lambda yields: yields._lock),
    ],
    ids=["references", "yields"],
)
def test_an_interrupted_cell_leaves_no_lock_behind(
    make: Callable[[], Any], step: Callable[[Any], object], lock: Callable[[Any], Any]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    def go_on(one: Any) -> None:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0005, 0.003))
        while True:
            step(one)

    handler = signal.signal(signal.SIGALRM, interrupt)
    try:
        for _ in range(60):
            one = make()
            with pytest.raises(KeyboardInterrupt):
                go_on(one)
            with concurrent.futures.ThreadPoolExecutor() as another:
                assert another.submit(lock(one).acquire, timeout=5).result()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
