"""Over TLS, through the gateway of the other machine, both ends on loopback."""

from __future__ import annotations

from typing import Any

from far import Besieged, Calm, FarKernels, RawTls
from measuring import OURS, Row, Run, experiment, under, within
from ours import Kernels

CALL = Row(
    "tls-call",
    "call of a function that is there already, over TLS",
    "us",
    within(2.5, "raw TLS"),
    floor="raw TLS",
    note="handed on by the gateway, as calls that follow each other are; and their cell",
)
BESIEGED = Row(
    "tls-besieged",
    "the same, while strangers flood the gateway",
    "us",
    within(2.0, Calm.name),
    note="who say nothing, or half a TLS greeting, hold on, and come again at once when they are shown the door",
)
FIRST = Row(
    "tls-first",
    "connect, look the kernel up, and call: no connection is there yet",
    "ms",
    under(60.0),
    note="three connections: name server, host, kernel",
)
FAN_OUT = Row("tls-fan-out-64", "one call on 64 kernels over TLS, in one selector loop", "ms")


class _Near(Kernels):
    name = "on the machine itself"


def _is_next(number: int, answer: Any) -> bool:
    return bool(answer == number + 1)


@experiment(CALL, seconds=60)
def tls_calls(run: Run) -> None:
    """Call by the gateway, on the machine itself, and send bytes to and fro."""
    with run.open(FarKernels(), RawTls(), _Near()) as peers:
        steps = {name: peer.call for name, peer in peers.items()}
        run.in_turn(CALL, steps, _is_next, rounds=run.rounds(60), repeat=50, warm=50)


@experiment(BESIEGED, seconds=90)
def besieged(run: Run) -> None:
    """Call where nobody else is, and where strangers hold on."""
    with run.open(Calm(), Besieged()) as peers:
        steps = {name: peer.call for name, peer in peers.items()}
        run.in_turn(BESIEGED, steps, _is_next, rounds=run.rounds(60), repeat=50, warm=50)


@experiment(FIRST, seconds=60)
def tls_first(run: Run) -> None:
    """Everything anew each time."""
    with run.open(FarKernels()) as peers:
        run.in_turn(FIRST, {OURS: peers[OURS].first}, _is_next, rounds=run.rounds(30), warm=2)


@experiment(FAN_OUT, seconds=120)
def tls_fan_out(run: Run) -> None:
    """Sixty-four connections to one gateway."""
    workers = 4 if run.quick else 64

    def right(number: int, answers: Any) -> bool:
        return bool(answers == [number + 1] * workers)

    with run.open(FarKernels(workers), _Near(workers)) as peers:
        steps = {name: peer.call_all for name, peer in peers.items()}
        run.in_turn(FAN_OUT, steps, right, rounds=run.rounds(20), repeat=2, warm=3)
