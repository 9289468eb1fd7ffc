"""The lives of a kernel that have a journal: when each began, when and why it ended. Runs in the caller's process."""

from __future__ import annotations

import time
from typing import Any

from pyrokernel.client.mesh import Mesh
from pyrokernel.errors import KernelNotFoundError
from pyrokernel.front.exits import ExitCode
from pyrokernel.front.reach import living_records
from pyrokernel.front.terminal import note, say, say_json
from pyrokernel.host.deaths import DeathLog
from pyrokernel.host.places import Places
from pyrokernel.messages import Death, KernelStatus
from pyrokernel.settings import Settings, command_line
from pyrokernel.texts import span, table


def find_lives(mesh: Mesh, name: str) -> list[dict[str, Any]]:
    """Ask the hosts for the lives of a kernel that have a journal, newest first.

    Returns:
        Per life: instance, host, alive, started and ended (Unix time in seconds, None where that is not known),
        cause, journal_dir.

    Raises:
        KernelNotFoundError: There is none.
    """
    roster = mesh.roster()
    born = {info.instance: info.started for info in roster.infos}
    lives = []
    for host in roster.hosts.values():
        for past in mesh.ask_host(host, "instances", name):
            instance = past["instance"]
            wire = mesh.ask_host(host, "obituary", instance)
            life = _life(instance, born.get(instance), Death.from_wire(wire) if wire else None)
            lives.append({**life, "host": host.name, "alive": past["alive"], "journal_dir": past["journal_dir"]})
    if not lives:
        known = ", ".join(info.name for info in roster.infos) or "none"
        raise KernelNotFoundError(f"there is no journal of kernel {name!r}; kernels are: {known}")
    return lives


def lives_on_disk(settings: Settings, name: str) -> list[dict[str, Any]]:
    """Look for the lives of a kernel where no host is left to ask; as `find_lives`, [] when there is none."""
    places = Places.of(settings)
    deaths = DeathLog(places.deaths)
    living = {record.instance: record.started for record in living_records(settings)}
    lives = []
    for path in places.journals(name):
        life = _life(path.name, living.get(path.name), deaths.of(path.name, 0.0))
        lives.append({**life, "host": settings.host_name, "alive": path.name in living, "journal_dir": str(path)})
    return lives


def note_life_before(mesh: Mesh, name: str, instance: str) -> None:
    """Say beside the journal of an instance that another one went before it, how that ended and how to read it.

    Args:
        mesh: Where it is.
        name: The kernel.
        instance: The present one; of any other there is nothing to say.
    """
    info = next((info for info in mesh.roster().infos if info.name == name and info.instance == instance), None)
    if info is None or not info.restarts or info.status == KernelStatus.DEAD:
        return
    ended = [life for life in find_lives(mesh, name) if life["ended"]]
    if ended:
        before = max(ended, key=lambda life: life["ended"])
        words = command_line(mesh.settings, f"logs {name} --instance {before['instance'][:8]}")
        age = span(max(0.0, time.time() - info.started))
        note(f"this life of {name} is {age} old; the one before it (see {words}): {before['cause']}")


def _life(instance: str, started: float | None, death: Death | None) -> dict[str, Any]:
    return {
        "instance": instance,
        "started": started or (death and death.started) or None,
        "ended": death.at if death else None,
        "cause": death.cause if death else "",
    }


def say_lives(lives: list[dict[str, Any]], as_json: bool) -> int:
    """List lives, for people or for a script."""
    if as_json:
        say_json(lives)
        return ExitCode.OK
    rows = [
        (
            life["instance"][:8],
            _moment(life["started"]),
            "lives" if life["alive"] else _moment(life["ended"]),
            life["cause"],
        )
        for life in lives
    ]
    say(table(("INSTANCE", "STARTED", "ENDED", "CAUSE"), rows))
    return ExitCode.OK


def _moment(at: float | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at)) if at else "?"
