"""The store over a real Redis: the contract, whose it is, and what breaks meanwhile. Runs in the test process."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import storing
from pyrokernel.errors import StateError, StateStorageError
from waiting import wait_until

# What is imported below needs it.
# ruff: noqa: E402
redis = pytest.importorskip("redis", reason="the package redis is not installed")

from pyrokernel_redis import link as link_module
from pyrokernel_redis import pyrokernel_open_store
from pyrokernel_redis.link import Link, Options
from pyrokernel_redis.store import RedisStore

Opener = Callable[[], RedisStore]


@pytest.fixture
def options(shared_server: Any, prefix: str) -> Options:
    return Options(shared_server.url, prefix)


@pytest.fixture
def store(server: Any) -> Iterator[RedisStore]:
    """A store in a server of the test's own, with x = 1."""
    found = RedisStore(Options(server.url), "lab")
    with storing.batch(found) as writer:
        writer.set("x", b"1")
    yield found
    found.close()


def value(store: RedisStore, key: str = "x") -> bytes:
    row = store.current("", key)
    assert row is not None
    return row.data


@pytest.mark.parametrize("check", storing.CHECKS, ids=storing.name_of)
def test_it_keeps_the_contract(check: storing.Check, options: Options) -> None:
    check(lambda: RedisStore(options, "lab"))


def test_the_hook_opens_it(shared_server: Any, prefix: str) -> None:
    """What `pyrokernel_open_store` of the plugin returns."""
    found = pyrokernel_open_store("lab", "process", {"url": shared_server.url, "prefix": prefix})
    with storing.opened(lambda: found) as store, storing.batch(store) as writer:
        writer.set("x")
    assert f"{prefix}lab:log" in shared_server.names()


def test_all_keys_begin_with_prefix_and_mesh(options: Options, shared_server: Any) -> None:
    before = set(shared_server.names())
    with storing.opened(lambda: RedisStore(options, "lab")) as store, storing.batch(store) as writer:
        writer.set("x", b"", space="fits", lease="l", request="r", file="f", sizes=(9,))
    fresh = set(shared_server.names()) - before
    assert fresh
    assert all(key.startswith(f"{options.prefix}lab:") for key in fresh)


def test_two_meshes_share_a_redis(options: Options) -> None:
    with (
        storing.opened(lambda: RedisStore(options, "lab")) as one,
        storing.opened(lambda: RedisStore(options, "office")) as other,
    ):
        with storing.batch(one) as writer:
            writer.set("x")
        assert other.current("", "x") is None


def test_what_is_forgotten_leaves_nothing_in_redis(options: Options, shared_server: Any) -> None:
    store = RedisStore(options, "lab")
    with storing.batch(store) as writer:
        writer.set("x", b"", space="~queue/todo", lease="l", request="r", file="f", sizes=(9,))
        writer.set("y", b"data", space="~queue/todo", request="r")
        writer.remove("x", space="~queue/todo")
        writer.remove("y", space="~queue/todo")
    with storing.batch(store):
        store.forget([1, 2, 3, 4])
        store.forget_key("~queue/todo", "x")
        store.forget_key("~queue/todo", "y")
        store.set_floor(4)
    store.close()
    RedisStore(options, "lab").close()
    left = [key for key in shared_server.names() if key.startswith(options.prefix)]
    assert left == [f"{options.prefix}lab:meta"]


# Whose it is


def test_a_second_service_is_refused_and_told_who_has_it(options: Options) -> None:
    with (
        storing.opened(lambda: RedisStore(options, "lab")),
        pytest.raises(StateStorageError, match=rf"another service has it, process {os.getpid()} on .*only one"),
    ):
        RedisStore(options, "lab")


def test_the_state_of_a_dead_process_of_this_machine_is_free_at_once(options: Options, shared_server: Any) -> None:
    child = os.fork()
    if child == 0:
        try:
            RedisStore(options, "lab")
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    owner = json.loads(shared_server.client.get(f"{options.prefix}lab:owner"))
    assert owner["pid"] == child
    RedisStore(options, "lab").close()


def test_the_state_of_another_machine_is_free_when_it_gives_no_sign_of_life(
    options: Options, shared_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = json.dumps({"host": "elsewhere", "machine": "m", "pid": 1, "life": "0"})
    shared_server.client.set(f"{options.prefix}lab:owner", other)
    shared_server.client.set(f"{options.prefix}lab:alive", "1", px=100_000)
    with pytest.raises(StateStorageError, match="process 1 on elsewhere"):
        RedisStore(options, "lab")
    shared_server.client.delete(f"{options.prefix}lab:alive")
    RedisStore(options, "lab").close()


def test_signs_of_life_are_given_until_it_is_closed(
    options: Options, shared_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "ALIVE_SECONDS", 0.3)
    store = RedisStore(options, "lab")
    alive = f"{options.prefix}lab:alive"
    shared_server.client.delete(alive)
    wait_until(lambda: shared_server.client.exists(alive))
    store.close()
    assert not shared_server.client.exists(alive)
    assert "pyrokernel-redis" not in [thread.name for thread in threading.enumerate()]


def test_a_service_that_was_taken_for_dead_changes_nothing_any_more(options: Options, shared_server: Any) -> None:
    late = RedisStore(options, "lab")
    with storing.batch(late) as writer:
        writer.set("x", b"1")
    shared_server.client.delete(f"{options.prefix}lab:alive")  # as if it had been suspended for long
    with storing.opened(lambda: RedisStore(options, "lab")) as store:
        late.begin()
        storing.Writer(late).set("x", b"late")
        with pytest.raises(StateStorageError, match="another service has taken it over"):
            late.commit()
        late.rollback()
        with pytest.raises(StateStorageError, match="another service has taken it over"):
            late.current("", "x")
        assert value(store) == b"1"
        late.close()
        with storing.batch(store) as writer:  # nor does it take the state from the other when it ends
            writer.set("x", b"2")


# What breaks


def test_a_redis_that_is_away_fails_each_request_and_is_found_again(store: RedisStore, server: Any) -> None:
    server.kill()
    for _ in range(2):
        with pytest.raises(StateStorageError, match="Redis is away"):
            store.current("", "x")
    store.begin()
    with pytest.raises(StateStorageError, match="Redis is away"):
        storing.Writer(store).set("x", b"2")
    store.rollback()
    server.start()
    wait_until(lambda: can(lambda: store.current("", "x")))
    assert value(store) == b"1"
    with storing.batch(store) as writer:
        writer.set("x", b"2")
    assert value(store) == b"2"


def can(ask: Callable[[], Any]) -> bool:
    try:
        ask()
    except StateStorageError:
        return False
    return True


def write_without_answer(store: RedisStore, monkeypatch: pytest.MonkeyPatch, *, arrives: bool) -> None:
    """Let the connection break amid a commit, for longer than it is tried again: before Redis has it, or after."""
    carry_out = Link._carry_out

    def break_off(link: Link, *arguments: Any) -> None:
        if arrives and not broken:
            carry_out(link, *arguments)
        broken.append(True)
        raise redis.ConnectionError("broken off")

    broken: list[bool] = []
    monkeypatch.setattr(Link, "_carry_out", break_off)
    monkeypatch.setattr(link_module, "_PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(link_module, "_REST_SECONDS", 0.0)
    store.begin()
    writer = storing.Writer(store)
    writer.set("x", b"2", lease="l", request="r")
    writer.set("new", b"2", space="other")
    store.drop_value(1)
    store.set_floor(1)
    with pytest.raises(StateStorageError, match="broken off"):
        store.commit()
    store.rollback()
    monkeypatch.setattr(Link, "_carry_out", carry_out)


@pytest.mark.parametrize("arrives", [True, False])
def test_a_commit_that_was_given_up_has_never_been(
    store: RedisStore, server: Any, monkeypatch: pytest.MonkeyPatch, arrives: bool
) -> None:
    """The client was told that nothing was changed; what Redis had carried out all the same is undone."""
    before = contents(server)
    write_without_answer(store, monkeypatch, arrives=arrives)
    assert (contents(server) != before) == arrives
    assert value(store) == b"1"
    assert contents(server) == before | {"lab:spaces": contents(server)["lab:spaces"]}
    assert (store.revision(), store.floor(), store.spaces()) == (1, 0, [""])
    with storing.batch(store) as writer:
        writer.set("x", b"3")
    assert value(store) == b"3"


def contents(server: Any) -> dict[str, Any]:
    """Return all that a server holds, but what changes by itself."""
    readers = {
        "hash": server.client.hgetall,
        "set": server.client.smembers,
        "zset": lambda key: server.client.zrange(key, 0, -1, withscores=True),
    }
    found = {}
    for key in server.names():
        kind = server.client.type(key).decode()
        if kind in readers:
            found[key.removeprefix("pyrokernel:")] = readers[kind](key)
    for value in found.values():
        if isinstance(value, dict):
            value.pop(b"commit", None)
    return found


def test_a_commit_whose_answer_was_lost_is_done_once(store: RedisStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is sent again, and Redis knows it."""
    carry_out = Link._carry_out
    calls = 0

    def lose_the_first_answer(link: Link, *arguments: Any) -> None:
        nonlocal calls
        calls += 1
        carry_out(link, *arguments)
        if calls == 1:
            raise redis.ConnectionError("broken off")

    monkeypatch.setattr(Link, "_carry_out", lose_the_first_answer)
    with storing.batch(store) as writer:
        writer.set("x", b"2")
    assert calls == 2
    assert value(store) == b"2"
    assert [row.data for row in store.changes(0, 9, "", "", 9)] == [b"1", b"2"]


def test_a_commit_waits_for_a_redis_that_is_started_anew(store: RedisStore, server: Any) -> None:
    store.begin()
    storing.Writer(store).set("x", b"2")
    server.kill()
    starting = threading.Thread(target=server.start)
    starting.start()
    store.commit()
    starting.join()
    assert value(store) == b"2"


def test_a_commit_that_fails_halfway_is_undone(store: RedisStore, server: Any) -> None:
    """Redis goes on after a command that fails within a script; somebody else's key in our place makes one fail."""
    server.client.set("pyrokernel:lab:changes:other", "in the way")
    before = contents(server)
    store.begin()
    storing.Writer(store).set("new", b"2", space="other")
    with pytest.raises(StateStorageError, match="Redis refuses"):
        store.commit()
    store.rollback()
    with pytest.raises(StateStorageError, match="Redis refuses"):
        store.current("", "x")  # what undoes it meets the same key
    server.client.delete("pyrokernel:lab:changes:other")
    assert value(store) == b"1"
    assert contents(server) == before | {"lab:spaces": contents(server)["lab:spaces"]}


def test_a_redis_that_is_full_refuses_and_keeps_what_it_has(store: RedisStore, server: Any) -> None:
    server.client.config_set("maxmemory", 1)
    store.begin()
    storing.Writer(store).set("x", b"2")
    with pytest.raises(StateStorageError, match="maxmemory"):
        store.commit()
    store.rollback()
    assert value(store) == b"1"
    server.client.config_set("maxmemory", 0)
    with storing.batch(store) as writer:
        writer.set("x", b"2")
    assert value(store) == b"2"


def test_a_redis_that_comes_back_without_its_data_is_not_written_to(forgetful_server: Any) -> None:
    server = forgetful_server
    store = RedisStore(Options(server.url, volatile=True), "lab")
    with storing.batch(store) as writer:
        writer.set("x")
    server.kill()
    server.start()
    with pytest.raises(StateStorageError, match="does not hold what was written last"):
        store.current("", "x")
    store.begin()
    store.write(storing.Row(2, "", "x", "set"))
    with pytest.raises(StateStorageError, match=f"end the service .process {os.getpid()}"):
        store.commit()
    store.rollback()
    store.close()
    assert server.names() == []


# What it refuses


def test_a_redis_that_keeps_nothing_is_refused(forgetful_server: Any) -> None:
    with pytest.raises(StateStorageError, match="appendonly yes"):
        RedisStore(Options(forgetful_server.url), "lab")
    assert forgetful_server.names() == []
    RedisStore(Options(forgetful_server.url, volatile=True), "lab").close()


def test_a_redis_that_throws_data_away_is_refused(server: Any) -> None:
    server.client.config_set("maxmemory", "100mb")
    server.client.config_set("maxmemory-policy", "allkeys-lru")
    with pytest.raises(StateStorageError, match=r"allkeys-lru.*noeviction"):
        RedisStore(Options(server.url), "lab")


def test_power_needs_a_redis_that_waits_for_the_disk(server: Any) -> None:
    with pytest.raises(StateStorageError, match="appendfsync always"):
        RedisStore(Options(server.url), "lab", "power")
    server.client.config_set("appendfsync", "always")
    RedisStore(Options(server.url), "lab", "power").close()


def test_another_format_is_refused(server: Any) -> None:
    server.client.hset("pyrokernel:lab:meta", "format", 2)
    with pytest.raises(StateStorageError, match="format 2, and this version reads 1"):
        RedisStore(Options(server.url), "lab")


def test_what_lost_its_description_is_refused(store: RedisStore, server: Any) -> None:
    store.close()
    server.client.delete("pyrokernel:lab:meta")
    with pytest.raises(StateStorageError, match="meta is gone"):
        RedisStore(Options(server.url), "lab")
    server.client.hset("pyrokernel:lab:meta", "format", 1)
    with pytest.raises(StateStorageError, match="no shared state of ours"):
        RedisStore(Options(server.url), "lab")


def test_a_row_that_is_damaged_is_named(store: RedisStore, server: Any) -> None:
    server.client.hset("pyrokernel:lab:log", "1", "[1, 2]")
    with pytest.raises(StateStorageError, match="a row in pyrokernel:lab:log is none of ours"):
        store.current("", "x")


def test_no_redis_at_all_is_told() -> None:
    with pytest.raises(StateStorageError, match=r"Redis, unix:///nowhere/redis\.sock: Redis is away"):
        RedisStore(Options("unix:///nowhere/redis.sock"), "lab")


def test_a_password_is_not_told() -> None:
    with pytest.raises(StateStorageError) as caught:
        RedisStore(Options("unix://ada:secret@/nowhere/redis.sock?password=hidden"), "lab")
    assert not {"secret", "hidden"} & set(str(caught.value).replace("@", " ").replace("=", " ").split())
    assert "secret" not in str(caught.value)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ({"adress": "unix:///x"}, "no option 'adress', only url, prefix, volatile"),
        ({"volatile": "no"}, "volatile is a bool, not 'no'"),
        ({"url": "nothing"}, "must specify one of the following schemes"),
    ],
)
def test_a_wrong_section_is_told(section: dict[str, Any], problem: str) -> None:
    with pytest.raises(StateStorageError, match=problem):
        pyrokernel_open_store("lab", "process", section)


def test_a_backup_is_the_business_of_redis(store: RedisStore) -> None:
    with pytest.raises(StateError, match="BGSAVE"):
        store.backup(Path("copy.db"))
