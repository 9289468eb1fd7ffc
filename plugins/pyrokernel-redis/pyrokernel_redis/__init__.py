"""The shared state of a mesh in Redis: `state_store = "redis"`. Runs in the state process, idle elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pyrokernel import hookimpl

if TYPE_CHECKING:
    from pyrokernel_redis.store import RedisStore


@hookimpl
def pyrokernel_open_store(mesh: str, durability: str, settings: Mapping[str, Any]) -> RedisStore:
    """Open the state of a mesh in the Redis that `[plugins.redis]` names."""
    # In here: every kernel imports this module, and only the state process needs Redis.
    from pyrokernel_redis.link import Options
    from pyrokernel_redis.store import RedisStore

    return RedisStore(Options.read(settings), mesh, durability)
