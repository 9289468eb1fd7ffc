"""The way to Redis: connections, whose the state is, and commits that happen once or never. Runs in the state process.

Whose it is says the key `owner`, an id for each life of a service; each commit is one script that
looks at it first. So a service that was taken for dead, and comes back, changes nothing any more. The
key `alive` runs out unless the owner renews it, and keeps others from taking the state over meanwhile.

A connection that breaks amid a commit leaves it open whether Redis has carried it out. Each commit has
an id, which Redis keeps with the rows: sent again, it is done once; and one that was given up is undone,
if it was done, before anything else is asked. So what a client was told holds.

Source: fencing, as in https://martin.kleppmann.com/2016/02/08/how-to-do-distributed-locking.html.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import logging
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import redis
from pyrokernel.errors import StateStorageError
from redis.backoff import NoBackoff
from redis.retry import Retry

log = logging.getLogger(__name__)

Word = bytes | str | int | float
Command = Sequence[Word]

ALIVE_SECONDS = 10.0
"""After so long without a sign of life another machine may take the state over."""

_RENEWALS = 3
"""Signs of life in that time."""

_CONNECT_SECONDS, _ANSWER_SECONDS = 2.0, 5.0
_PATIENCE_SECONDS = 1.0
"""How long a commit is tried again when the connection breaks: Redis may only have been started anew."""

_REST_SECONDS = 0.5
"""How long everything fails at once after Redis was found away: each try may take seconds, and clients wait."""

_MOST_WORDS = 1000
"""Of one command within a script, whose stack is small."""

_TAKE = """
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[3] and redis.call('EXISTS', KEYS[2]) == 1 then return owner end
redis.call('SET', KEYS[1], ARGV[1])
redis.call('SET', KEYS[2], '1', 'PX', ARGV[2])
return ''
"""

_RENEW = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[2], '1', 'PX', ARGV[2])
return 1
"""

_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1], KEYS[2]) end
"""

# The id comes first: should a command fail, what was done before it is undone like a commit that was given up.
_COMMIT = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'owner' end
local at = redis.call('HGET', KEYS[2], 'commit')
if at == ARGV[3] then return 'done' end
if at ~= ARGV[2] then return 'commit' end
redis.call('HSET', KEYS[2], 'commit', ARGV[3])
local i = 4
while i <= #ARGV do
    local last = i + tonumber(ARGV[i])
    redis.call(unpack(ARGV, i + 1, last))
    i = last + 1
end
return 'done'
"""


@dataclasses.dataclass(frozen=True)
class Options:
    """The section `[plugins.redis]`.

    Attributes:
        url: Which Redis; as redis-py has it, so with account, password and TLS if need be.
        prefix: What the names of all keys begin with.
        volatile: Take a Redis that may lose what it has acknowledged.
    """

    url: str = "redis://localhost:6379/0"
    prefix: str = "pyrokernel:"
    volatile: bool = False

    @classmethod
    def read(cls, section: Mapping[str, Any]) -> Options:
        """Read the section; `preload` in it is for all plugins.

        Raises:
            StateStorageError: It has something else in it.
        """
        known = {field.name: type(field.default) for field in dataclasses.fields(cls)}
        given = {name: value for name, value in section.items() if name != "preload"}
        for name, value in given.items():
            if name not in known:
                reason = f"there is no option {name!r}, only {', '.join(known)}"
                raise StateStorageError(path="Redis, [plugins.redis]", reason=reason)
            if not isinstance(value, known[name]):
                reason = f"{name} is a {known[name].__name__}, not {value!r}"
                raise StateStorageError(path="Redis, [plugins.redis]", reason=reason)
        return cls(**given)


class Link:
    """One state in a Redis, which belongs to this process.

    Args:
        options: Which Redis, and where in it.
        mesh: Whose state.
        durability: What it must survive.

    Attributes:
        where: What users are told.
        prefix: What all our keys begin with.

    Raises:
        StateStorageError: It is away, another service has the state, or it keeps nothing.
    """

    def __init__(self, options: Options, mesh: str, durability: str) -> None:
        self.where = re.sub(r"://[^@/]*@", "://", options.url).partition("?")[0]  # without account and password
        self.prefix = f"{options.prefix}{mesh}:"
        self._keys = [self.prefix + "owner", self.prefix + "alive"]
        self._commit_keys = [self.prefix + "owner", self.prefix + "meta"]
        self._life = secrets.token_hex(8)
        self._owner = json.dumps(
            {"host": socket.gethostname(), "machine": _machine(), "pid": os.getpid(), "life": self._life}
        )
        self._numbers = itertools.count(1)
        self._commit = ""
        self._in_doubt: tuple[str, str, list[Command]] | None = None
        self._settled = False
        self._rest_until, self._away = 0.0, ""
        self._lost = ""
        self._ended = threading.Event()
        with self._explained():
            self._redis = self._client(options.url, redis_connect_func=self._connected)
        self._scripts = {text: self._redis.register_script(text) for text in (_TAKE, _COMMIT)}
        try:
            with self._explained():
                if not options.volatile:
                    self._check_promises(durability)
                self._take()
        except BaseException:
            self._redis.close()
            raise
        self._renewer = threading.Thread(
            target=self._keep_alive, args=(self._client(options.url),), name="pyrokernel-redis", daemon=True
        )
        self._renewer.start()

    @staticmethod
    def _client(url: str, **more: Any) -> redis.Redis:
        # Without tries of its own: what is sent again, and when, is decided here.
        return redis.Redis.from_url(
            url,
            socket_connect_timeout=_CONNECT_SECONDS,
            socket_timeout=_ANSWER_SECONDS,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            **more,
        )

    def _connected(self, connection: Any) -> None:
        """Greet Redis; it may be another one, or have been started anew, so we look who owns the state."""
        self._settled = False
        connection.on_connect()

    def start(self, commit: str) -> None:
        """Say which commit Redis has, once the state was read: from now on it may change only through us."""
        self._commit = commit

    # Asking

    def ask(self, *words: Word) -> Any:
        """Return the answer to one command.

        Raises:
            StateStorageError: Redis is away, or what it holds is not ours any more.
        """
        self._settle()
        with self._explained():
            answer = self._redis.execute_command(*words)
        self._settle()  # it may have come over a new connection, which redis-py opens where the old one has ended
        return answer

    def ask_all(self, commands: Sequence[Command]) -> list[Any]:
        """Return the answers to several commands, sent together.

        Raises:
            StateStorageError: As for `ask`.
        """
        self._settle()
        with self._explained():
            pipeline = self._redis.pipeline(transaction=False)
            for command in commands:
                pipeline.execute_command(*command)
            answers: list[Any] = pipeline.execute()
        self._settle()
        return answers

    def run(self, script: str, keys: Sequence[str], words: Sequence[Word]) -> Any:
        """Return the answer to a script that only reads.

        Raises:
            StateStorageError: As for `ask`.
        """
        self._settle()
        if script not in self._scripts:
            self._scripts[script] = self._redis.register_script(script)
        with self._explained():
            answer = self._scripts[script](keys=keys, args=words)
        self._settle()
        return answer

    def commit(self, commands: list[Command], inverse: list[Command]) -> None:
        """Carry out commands: all of them, or none, also when the connection breaks meanwhile.

        Args:
            commands: What to do.
            inverse: What undoes it, from any point.

        Raises:
            StateStorageError: Nothing was changed, or will have been once somebody can look.
        """
        self._settle()
        before, after = self._commit, f"{self._life}.{next(self._numbers)}"
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                with self._explained():
                    self._carry_out(before, after, commands)
            except StateStorageError:
                self._settled = False
                if self._lost:
                    raise
                self._in_doubt = (before, after, inverse)
                if not self._rest_until or time.monotonic() >= deadline:
                    raise
                self._ended.wait(0.02)
            else:
                self._commit, self._in_doubt, self._rest_until = after, None, 0.0
                return

    def _carry_out(self, before: str, after: str, commands: Sequence[Command]) -> None:
        words: list[Word] = [self._owner, before, after]
        for command in commands:
            words += (len(command), *command)
        answer = self._scripts[_COMMIT](keys=self._commit_keys, args=words)
        if answer != b"done":
            self._lose()

    def _settle(self) -> None:
        """Find out, on a new connection, whether all is as we left it; undo what was given up."""
        if self._settled:
            return
        if self._lost:
            raise self._error(self._lost)
        if time.monotonic() < self._rest_until:
            raise self._error(self._away)
        with self._explained():
            if self._in_doubt is not None:
                before, after, inverse = self._in_doubt
                self._carry_out(after, before, inverse)
                self._in_doubt = None
            owner = self._redis.execute_command("GET", self._keys[0])
            commit = self._redis.execute_command("HGET", self._commit_keys[1], "commit")
            if (owner or b"").decode() != self._owner or (self._commit and (commit or b"").decode() != self._commit):
                self._lose()
        self._rest_until = 0.0
        self._settled = True

    def _lose(self) -> None:
        """Give up: what Redis holds is not what we left there.

        Raises:
            StateStorageError: Always.
        """
        owner = self._redis.execute_command("GET", self._keys[0])
        if owner is not None and owner.decode() != self._owner:
            self._lost = f"another service has taken it over, {_describe(owner)}"
        else:
            self._lost = (
                "Redis does not hold what was written last: it was started without its data, or they were replaced; "
                f"end the service (process {os.getpid()}), and the next one goes on with what there is"
            )
        self._settled = False
        raise self._error(self._lost)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what redis-py raises into words for the user."""
        try:
            yield
        except redis.ConnectionError as error:
            self._note_away(f"Redis is away: {error}")
            raise self._error(self._away) from error
        except redis.TimeoutError as error:
            self._note_away(f"Redis does not answer: {error}")
            raise self._error(self._away) from error
        except redis.RedisError as error:
            raise self._error(f"Redis refuses: {error}") from error
        except ValueError as error:  # of a URL that is none
            raise self._error(str(error)) from error

    def _note_away(self, reason: str) -> None:
        self._settled = False
        self._away, self._rest_until = reason, time.monotonic() + _REST_SECONDS

    def _error(self, reason: str) -> StateStorageError:
        return StateStorageError(path=f"Redis, {self.where}", reason=reason)

    # Whose it is

    def _take(self) -> None:
        """Make the state ours.

        Raises:
            StateStorageError: Another service has it.
        """
        milliseconds = int(ALIVE_SECONDS * 1000)
        holder = self._scripts[_TAKE](keys=self._keys, args=[self._owner, milliseconds, ""])
        if holder and _is_dead(holder):  # it was killed, and could not say so
            holder = self._scripts[_TAKE](keys=self._keys, args=[self._owner, milliseconds, holder])
        if holder:
            raise self._error(
                f"another service has it, {_describe(holder)}; there can be only one. If that one is dead, it is free "
                f"within {ALIVE_SECONDS:g} s; another mesh takes another `prefix`"
            )

    def _keep_alive(self, client: redis.Redis) -> None:
        """Give signs of life until the end; for a thread of its own."""
        renew = client.register_script(_RENEW)
        while not self._ended.wait(ALIVE_SECONDS / _RENEWALS):
            with contextlib.suppress(redis.RedisError):  # away: whoever asks next is told
                if not renew(keys=self._keys, args=[self._owner, int(ALIVE_SECONDS * 1000)]):
                    break
        client.close()

    def close(self) -> None:
        """Let others have the state."""
        self._ended.set()
        self._renewer.join(1.0)
        with contextlib.suppress(redis.RedisError):  # away: it is free when the last sign of life runs out
            self._redis.eval(_RELEASE, 2, *self._keys, self._owner)
        self._redis.close()

    # What it promises

    def _check_promises(self, durability: str) -> None:
        """Refuse a Redis that may lose what it has acknowledged.

        Raises:
            StateStorageError: This one may; the message says what to change.
        """
        memory = self._redis.info("memory")
        if memory.get("maxmemory") and str(memory.get("maxmemory_policy", "")).startswith("allkeys"):
            raise self._error(
                f"this Redis throws data away when its memory is full (maxmemory-policy {memory['maxmemory_policy']}): "
                "set it to noeviction, or say `volatile = true` in [plugins.redis]"
            )
        if not self._redis.info("persistence").get("aof_enabled"):
            raise self._error(
                "this Redis forgets what it has acknowledged when it is killed (appendonly no): set `appendonly yes` "
                "in its configuration, or say `volatile = true` in [plugins.redis]"
            )
        if durability == "power":
            synced = self._redis.execute_command("CONFIG", "GET", "appendfsync")
            value = synced.get("appendfsync") if isinstance(synced, dict) else (synced or [b"", b""])[1]
            if value not in ("always", b"always"):
                raise self._error(
                    'durability = "power" needs `appendfsync always` in the configuration of this Redis; '
                    "or say `volatile = true` in [plugins.redis]"
                )


def chunks(verb: str, key: str, words: Sequence[Word], width: int = 1) -> Iterator[Command]:
    """Yield commands that do something to many members or fields of a key.

    Args:
        verb: What, such as "HSET".
        key: To which key.
        words: The members; or fields with their values, `width` words each.
        width: How many words belong together.
    """
    step = _MOST_WORDS // width * width
    for start in range(0, len(words), step):
        yield (verb, key, *words[start : start + step])


def _machine() -> str:
    """Return what is the same for all processes of one machine, until it is started anew."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _is_dead(owner: bytes) -> bool:
    """Whether an owner was a process of this machine that is gone."""
    try:
        told = json.loads(owner)
        if (told["host"], told["machine"]) != (socket.gethostname(), _machine()):
            return False
        os.kill(int(told["pid"]), 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError, KeyError, TypeError):  # another user's, or not written by us
        return False
    return False


def _describe(owner: bytes) -> str:
    try:
        told = json.loads(owner)
        return f"process {told['pid']} on {told['host']}"
    except (ValueError, KeyError, TypeError):
        return repr(owner[:80])
