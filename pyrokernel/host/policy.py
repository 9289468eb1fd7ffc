"""What the host decides, as functions of what it knows; nothing here acts. Runs in the host process."""

from __future__ import annotations

import enum
import signal
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from pyrokernel import systems
from pyrokernel.errors import NameTakenError, SettingsError
from pyrokernel.messages import KernelSpec
from pyrokernel.settings import check_name

RESTART_POLICIES = ("always", "on-failure", "never")
MAX_DEATHS = 5
"""Unasked deaths within `DEATH_WINDOW_SECONDS` after which a kernel is given up when it dies once more."""
DEATH_WINDOW_SECONDS = 60.0
PAUSES_SECONDS = (0.0, 0.0, 0.2, 0.5, 1.0)
"""Pause before the restart after the first, second ... recent death: one accident costs nothing, a loop is slowed."""

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


class Asked(enum.StrEnum):
    """Why somebody wanted an instance to end."""

    NOT = ""
    """Nobody did."""
    STOP = "stop"
    """It shall not come back."""
    RESTART = "restart"
    """A fresh instance shall follow at once."""


class Ending(NamedTuple):
    """How a process ended, as far as it could be collected.

    Attributes:
        signal, exit_code: One of them; both None for a process that is not the host's child.
        peak_memory_bytes: Largest resident set, or None.
    """

    signal: int | None = None
    exit_code: int | None = None
    peak_memory_bytes: int | None = None


class Verdict(NamedTuple):
    """What follows a death.

    Attributes:
        restart: Whether a new instance is started.
        pause: Seconds to wait before that.
        given_up: Why the kernel stays dead although its policy says restart, or "".
    """

    restart: bool
    pause: float = 0.0
    given_up: str = ""


def ended_by_request(asked: Asked, ending: Ending, spec: KernelSpec) -> bool:
    """Tell whether an end was wanted; a kernel with an idle limit that exits cleanly has reached it."""
    return asked is not Asked.NOT or (spec.idle_stop > 0 and ending.exit_code == 0)


def after_death(spec: KernelSpec, ending: Ending, asked: Asked, recent: Sequence[float], now: float) -> Verdict:
    """Decide what follows the death of an instance.

    Args:
        spec: The kernel.
        ending: How it ended.
        asked: Whether somebody wanted that.
        recent: Times of its unasked deaths, this one included, ascending; shape (n_deaths,).
        now: The time on the same clock.
    """
    if asked is Asked.RESTART:
        return Verdict(restart=True)
    if ended_by_request(asked, ending, spec) or spec.restart == "never":
        return Verdict(restart=False)
    if spec.restart == "on-failure" and ending.exit_code == 0:
        return Verdict(restart=False)
    count = sum(1 for at in recent if now - at <= DEATH_WINDOW_SECONDS)
    if count > MAX_DEATHS:
        return Verdict(
            restart=False,
            given_up=f"given up after {count} deaths within {DEATH_WINDOW_SECONDS:.0f} s: "
            "mend the cause, then restart it",
        )
    return Verdict(restart=True, pause=PAUSES_SECONDS[min(max(count, 1), len(PAUSES_SECONDS)) - 1])


def describe_ending(ending: Ending, asked: Asked = Asked.NOT) -> str:
    """Say in one sentence how a process ended."""
    if ending.signal is not None:
        text = f"killed by {_signal_name(ending.signal)}"
    elif ending.exit_code is not None:
        text = f"exited with code {ending.exit_code}"
    else:
        text = "ended" if asked is not Asked.NOT else "ended; how, only the host that started it could see"
    if ending.peak_memory_bytes:
        text += f" (peak memory {ending.peak_memory_bytes / 2**20:.0f} MiB)"
    if asked is not Asked.NOT:
        return f"{text}, because a {asked.value} was asked for"
    if ending.signal == systems.KILL:
        text += "; not by this host: its own code, another process, or the system because memory ran out"
    return text


def _signal_name(number: int) -> str:
    try:
        return f"{signal.Signals(number).name} ({signal.strsignal(number)})"
    except ValueError:
        return f"signal {number}"


def check_spec(spec: KernelSpec) -> KernelSpec:
    """Return `spec` if a kernel can be made of it.

    Raises:
        SettingsError: A name or a value cannot be used.
    """
    check_name(spec.name, "kernel")
    for tag in spec.tags:
        check_name(tag, "tag")
    if spec.restart not in RESTART_POLICIES:
        raise SettingsError(f"kernel {spec.name!r}: restart is {' or '.join(RESTART_POLICIES)}, not {spec.restart!r}")
    for field in ("threads", "memory_bytes", "descriptors", "journal_bytes", "idle_stop"):
        if getattr(spec, field) < 0:
            raise SettingsError(f"kernel {spec.name!r}: {field} cannot be below 0")
    return spec


def check_new_names(specs: Iterable[KernelSpec], holders: Mapping[str, str]) -> None:
    """Refuse names given twice or held by a living kernel.

    Args:
        specs: Kernels to start.
        holders: Name of each living kernel to its instance.

    Raises:
        NameTakenError: A living instance has the name.
        SettingsError: Two of the specs have it.
    """
    seen: set[str] = set()
    for spec in specs:
        if spec.name in holders:
            raise NameTakenError(name=spec.name, holder=f"instance {holders[spec.name]} on this machine")
        if spec.name in seen:
            raise SettingsError(f"two kernels are named {spec.name!r}")
        seen.add(spec.name)


def free_names(count: int, taken: Collection[str], stem: str = "k") -> list[str]:
    """Return the first `count` names of the form `stem` and a number that nobody has."""
    names: list[str] = []
    number = 0
    while len(names) < count:
        name = f"{stem}{number}"
        if name not in taken:
            names.append(name)
        number += 1
    return names


def thread_variables(spec: KernelSpec, processors: int, kernels: int, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment that limits BLAS and OpenMP threads, for what neither the user nor the spec has set.

    Args:
        spec: The kernel; `spec.threads` of 0 takes an equal share of the processors.
        processors: How many the machine has.
        kernels: How many kernels share them.
        environ: The host's environment.
    """
    threads = spec.threads or max(1, processors // max(1, kernels))
    # An explicit number in the spec is the later word than the environment of whoever started the host.
    given = set(spec.env) if spec.threads else set(spec.env) | set(environ)
    return {name: str(threads) for name in THREAD_VARIABLES if name not in given}
