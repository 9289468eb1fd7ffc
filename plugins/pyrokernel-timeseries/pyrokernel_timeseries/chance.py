"""Random numbers: the distributions, and whose stream is whose. Runs in the kernel process.

Kernels are forked from one template, and a stream inherited by a fork would be the same
stream in each. So a process makes its own, from the entropy of the operating system, when
it first needs one, and a child of a fork forgets that of its parent.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["DISTRIBUTIONS", "fill", "generator", "set_random_seed"]

_Fill: TypeAlias = Callable[[NDArray[np.float64], float, float, np.random.Generator], None]

_own: np.random.Generator | None = None


def set_random_seed(seed: int | None = None) -> None:
    """Begin this process's stream anew.

    Args:
        seed: Not negative; the same one gives the same numbers. None takes a seed from the operating system.
    """
    global _own
    _own = np.random.default_rng(seed)


def generator(seed: int | None = None) -> np.random.Generator:
    """Return a generator for a seed; without one, this process's own, which goes on where it was."""
    if seed is not None:
        return np.random.default_rng(seed)
    if _own is None:
        set_random_seed()
    assert _own is not None
    return _own


def _forget() -> None:
    global _own
    _own = None


os.register_at_fork(after_in_child=_forget)


def fill(values: NDArray[np.float64], distribution: str, loc: float, scale: float, chosen: np.random.Generator) -> None:
    """Overwrite an array with random numbers.

    Args:
        values: Shape (n,), contiguous.
        distribution: "uniform" from loc to loc + scale; "normal" of mean loc and standard deviation scale;
            "semicircle" of radius 1 around loc, whatever the scale; "lognormal", whose logarithm is that normal.
        chosen: Where they come from.

    Raises:
        ValueError: The scale of a uniform distribution is not positive.
        NotImplementedError: There is no such distribution.
    """
    try:
        chosen_fill = DISTRIBUTIONS[distribution]
    except (KeyError, TypeError):
        names = ", ".join(DISTRIBUTIONS)
        raise NotImplementedError(f"no distribution {distribution!r}; there are {names}") from None
    chosen_fill(values, float(loc), float(scale), chosen)


def _uniform(values: NDArray[np.float64], loc: float, scale: float, chosen: np.random.Generator) -> None:
    if not loc < loc + scale:
        raise ValueError(f"left must be less than right: the scale is {scale:g}")
    chosen.random(out=values)
    values *= scale
    values += loc


def _normal(values: NDArray[np.float64], loc: float, scale: float, chosen: np.random.Generator) -> None:
    chosen.standard_normal(out=values)
    values *= scale
    values += loc


def _lognormal(values: NDArray[np.float64], loc: float, scale: float, chosen: np.random.Generator) -> None:
    _normal(values, loc, scale, chosen)
    with np.errstate(over="ignore"):
        np.exp(values, out=values)


_BLOCK = 1 << 16


def _semicircle(values: NDArray[np.float64], loc: float, scale: float, chosen: np.random.Generator) -> None:
    # One coordinate of a point that falls evenly on the disc; in blocks, as it takes a second array.
    for start in range(0, len(values), _BLOCK):
        block = values[start : start + _BLOCK]
        chosen.random(out=block)
        np.sqrt(block, out=block)
        block *= np.cos(math.pi * chosen.random(len(block)))
        block += loc


DISTRIBUTIONS: dict[str, _Fill] = {
    "uniform": _uniform,
    "normal": _normal,
    "semicircle": _semicircle,
    "lognormal": _lognormal,
}
