"""A simulation spread over a mesh, from Python and as `pyrokernel simulate`. Runs in the caller's process."""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

from pyrokernel_timeseries.histograms import Histogram, draw, merge
from pyrokernel_timeseries.simulate import Distribution, bounds

if TYPE_CHECKING:
    from pyrokernel import Settings

__all__ = ["SUMMARY", "configure", "run", "scatter_simulation"]

PARTS = 64
"""Into how many calls a simulation is cut: enough to keep many kernels busy to the end."""

SUMMARY = "spread a simulation over kernels, and draw its histogram"


class _Group(Protocol):
    """What of `pyrokernel.Group` is used here."""

    @property
    def map_calls(self) -> Callable[..., Iterable[Histogram]]: ...


def scatter_simulation(
    group: _Group,
    total: int,
    distribution: Distribution = "normal",
    loc: float = 0.0,
    scale: float = 1.0,
    *,
    bins: int = 50,
    seed: int | None = None,
    low: float | None = None,
    high: float | None = None,
    parts: int = PARTS,
) -> Histogram:
    """Simulate on all kernels of a group and merge their histograms.

    Args:
        group: Its kernels have this plugin.
        total: How many random numbers, of all kernels together.
        distribution, loc, scale: As for `TimeSeries.randomize`.
        seed: The same one gives the same histogram, whatever the number of kernels, as long as `parts` is the same.
        low, high: Where the bins begin and end; None suits the distribution.
        parts: Into how many calls the work is cut.

    Raises:
        ValueError: A number is not one of those that make sense.
        PyrokernelError: What the job of `Group.map_calls` raises.
    """
    if total < 0:
        raise ValueError(f"total must not be negative, but is {total}")
    if parts <= 0 or bins <= 0:
        raise ValueError(f"bins and parts must be positive, not {bins} and {parts}")
    first, last = bounds(distribution, loc, scale, low, high)
    number = max(1, min(parts, total))
    each, more = divmod(total, number)
    common = {
        "distribution": distribution, "loc": loc, "scale": scale, "bins": bins, "low": first, "high": last
    }  # fmt: skip
    calls = [
        ((), {"size": each + (part < more), "seed": None if seed is None else _seed_of_part(seed, part), **common})
        for part in range(number)
    ]
    return merge(group.map_calls("simulate", calls))


def _seed_of_part(seed: int, part: int) -> int:
    """Return a seed for a part: neighbouring seeds and parts have nothing in common."""
    # 63 bits, so that it is an ordinary integer to every codec on the way.
    return int.from_bytes(hashlib.sha256(f"{seed}/{part}".encode()).digest()[:8], "big") >> 1


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `pyrokernel simulate`."""
    parser.add_argument("words", nargs="*", metavar="WORD", help="which kernels (default: all)")
    parser.add_argument(
        "--size", type=_whole, default=1_000_000, metavar="N", help="how many numbers (default: 1000000)"
    )
    parser.add_argument(
        "--distribution",
        choices=["uniform", "normal", "semicircle", "lognormal"],
        default="normal",
        help="of which kind (default: normal)",
    )
    parser.add_argument("--loc", type=float, default=0.0, metavar="X", help="where the distribution is (default: 0)")
    parser.add_argument("--scale", type=float, default=1.0, metavar="X", help="how wide it is (default: 1)")
    parser.add_argument("--bins", type=_counted, default=24, metavar="N", help="how many bins (default: 24)")
    parser.add_argument("--low", type=float, metavar="X", help="where the first bin begins")
    parser.add_argument("--high", type=float, metavar="X", help="where the last bin ends")
    parser.add_argument("--seed", type=_whole, metavar="N", help="the same one gives the same numbers")
    parser.add_argument("--parts", type=_counted, default=PARTS, metavar="N", help="into how many calls it is cut")
    parser.add_argument("--plot", metavar="FILE", help="also write a picture (.png, .svg, .pdf)")
    parser.add_argument("--json", action="store_true", help="answer in JSON")


def _whole(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return number


def _counted(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return number


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Run `pyrokernel simulate`.

    Raises:
        SettingsError: The bounds leave no room for bins, or a picture is asked for and matplotlib is missing.
        PyrokernelError: The mesh cannot be reached, or a kernel failed.
    """
    from pyrokernel import SettingsError, connect

    try:
        bounds(args.distribution, args.loc, args.scale, args.low, args.high)
        if args.distribution == "uniform" and args.scale <= 0:
            raise ValueError(f"a uniform distribution needs a positive scale, not {args.scale:g}")
    except ValueError as error:
        raise SettingsError(str(error)) from error
    if args.plot:
        _want_matplotlib()
    with connect(settings) as mesh:
        group = mesh.select(args.words)
        begun = time.monotonic()
        histogram = scatter_simulation(
            group,
            args.size,
            args.distribution,
            args.loc,
            args.scale,
            bins=args.bins,
            seed=args.seed,
            low=args.low,
            high=args.high,
            parts=args.parts,
        )
        seconds = time.monotonic() - begun
    title = f"{args.size:,} values, {args.distribution}, loc {args.loc:g}, scale {args.scale:g}"
    if args.plot:
        from pyrokernel_timeseries.plots import save

        save(histogram, args.plot, title)
    if args.json:
        print(json.dumps(histogram))
        return 0
    number = len(group)
    print(draw(histogram, shutil.get_terminal_size().columns, ascii_only=not _writes_blocks()))
    print(f"{title}: {number} kernel{'s' * (number != 1)}, {seconds:.2f} s")
    return 0


def _want_matplotlib() -> None:
    """Raise before the work is done rather than after."""
    from pyrokernel import SettingsError

    try:
        import matplotlib  # noqa: F401  only to see whether it is there
    except ImportError as error:
        raise SettingsError("a picture needs matplotlib: pip install 'pyrokernel-timeseries[plot]'") from error


def _writes_blocks() -> bool:
    try:
        "█│".encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True
