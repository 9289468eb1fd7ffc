"""Time series as Sage has them, on NumPy: the hooks of the plugin. Runs in every process.

Where to look::

    later         NumPy, imported when it is first used
    values        what makes a series a list of floats
    series        the class TimeSeries: statistics, averages, transforms
    rescaled      Hurst's rescaled range
    chance        random numbers: the distributions, and whose stream is whose
    plots         drawing a series or a histogram, with matplotlib
    histograms    counting over given bins, merging counts, drawing them as text
    simulate      the command `simulate`
    scatter       a simulation spread over a mesh, from Python and as `pyrokernel simulate`

The first cell of every kernel imports this module and `series`, so neither imports NumPy.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING

from pyrokernel import hookimpl

if TYPE_CHECKING:
    import argparse

    from pyrokernel import Settings
    from pyrokernel.hookspecs import RegisterCommand, RegisterSubcommand

    from pyrokernel_timeseries.chance import set_random_seed
    from pyrokernel_timeseries.histograms import Histogram, draw, merge
    from pyrokernel_timeseries.scatter import scatter_simulation
    from pyrokernel_timeseries.series import TimeSeries

__all__ = ["Histogram", "TimeSeries", "draw", "merge", "scatter_simulation", "set_random_seed"]

_ROOMS = {
    "Histogram": "histograms",
    "TimeSeries": "series",
    "draw": "histograms",
    "merge": "histograms",
    "scatter_simulation": "scatter",
    "set_random_seed": "chance",
}


def __getattr__(name: str) -> object:
    """Fetch a public name from its module at first use (PEP 562)."""
    if name not in _ROOMS:
        raise AttributeError(f"module 'pyrokernel_timeseries' has no attribute {name!r}")
    return getattr(import_module(f"pyrokernel_timeseries.{_ROOMS[name]}"), name)


@hookimpl
def pyrokernel_add_names() -> Mapping[str, object]:
    """Give every namespace `TimeSeries`, and `sageRemoteValue`, as files written for Sage kernels call `command`."""
    from pyrokernel import command

    from pyrokernel_timeseries.series import TimeSeries

    return {"TimeSeries": TimeSeries, "sageRemoteValue": command}


@hookimpl
def pyrokernel_register_commands(register: RegisterCommand) -> None:
    """Register `simulate`."""
    from pyrokernel_timeseries.simulate import simulate

    register(simulate)


@hookimpl
def pyrokernel_register_subcommands(register: RegisterSubcommand) -> None:
    """Register `pyrokernel simulate`; what it does is imported when it is called."""
    from pyrokernel_timeseries.scatter import SUMMARY, configure

    def run(args: argparse.Namespace, settings: Settings) -> int:
        from pyrokernel_timeseries.scatter import run

        return run(args, settings)

    register("simulate", run, help=SUMMARY, configure=configure)


@hookimpl
def pyrokernel_preload() -> None:
    """Import NumPy in the template, so that all kernels share it.

    OpenBLAS, with which most NumPy come, starts threads when it is loaded, and a template with threads is not forked
    from. So this pays only where the host was started with OPENBLAS_NUM_THREADS=1.
    """
    import_module("pyrokernel_timeseries.chance")
