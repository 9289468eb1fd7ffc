"""Figures of matplotlib: shown in a kernel, saved, and announced in the journal. Runs in the kernel process.

A kernel has no screen, and matplotlib would say so at `show()`. Where nobody has chosen a
backend it gets this one, as soon as matplotlib is imported and not before. An environment
variable would do too, but every program that a cell starts would inherit it.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import itertools
import os
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

_BACKEND = "pyrokernel_figures"
"""Name under which matplotlib imports what `_Loader` makes."""


class Figures:
    """Saves what is shown.

    Args:
        directory: Where to; made when there is something to save.
        announce: Called with the path of each figure.
    """

    def __init__(self, directory: Path, announce: Callable[[str], None]) -> None:
        self._directory = directory
        self._announce = announce
        self._numbers = itertools.count(1)

    def install(self) -> None:
        """Wait for matplotlib to be imported."""
        sys.meta_path.insert(0, _Finder(self))

    def show(self, figure: Any) -> None:
        """Save one figure."""
        path = self._directory / f"figure-{next(self._numbers)}.png"
        try:
            self._directory.mkdir(exist_ok=True, mode=0o700)
            figure.savefig(path, format="png", bbox_inches="tight")
        except OSError as error:
            # A full disk is no fault of the cell, which may have run for hours.
            sys.stderr.write(f"[figure not saved: {error}]\n")
            with contextlib.suppress(OSError):
                path.unlink()
            return
        self._announce(str(path))

    def adopt(self, matplotlib: Any) -> None:
        """Become the backend of a matplotlib that has none yet."""
        chosen = dict.__getitem__(matplotlib.rcParams, "backend")  # looking it up as usual would choose one
        if chosen == getattr(matplotlib.rcsetup, "_auto_backend_sentinel", None) and "MPLBACKEND" not in os.environ:
            matplotlib.use(f"module://{_BACKEND}")

    def fill(self, module: types.ModuleType) -> None:
        """Make of an empty module a backend."""
        # Only now: it takes numpy, and matplotlib itself may be wanted for something else.
        from matplotlib._pylab_helpers import Gcf
        from matplotlib.backend_bases import FigureManagerBase
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        figures = self

        class FigureManager(FigureManagerBase):  # type: ignore[misc, unused-ignore]  # optional: without types there
            def show(self) -> None:
                figures.show(self.canvas.figure)

            @classmethod
            def pyplot_show(cls, *, block: bool | None = None) -> None:
                for manager in Gcf.get_all_fig_managers():
                    manager.show()
                Gcf.destroy_all()  # as a window that was closed: the next show() has only what is new

        class FigureCanvas(FigureCanvasAgg):  # type: ignore[misc, unused-ignore]
            manager_class = FigureManager

        module.FigureManager = FigureManager  # type: ignore[attr-defined]
        module.FigureCanvas = FigureCanvas  # type: ignore[attr-defined]


class _Finder:
    """Sees matplotlib being imported, and finds the backend."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname == _BACKEND:
            return importlib.machinery.ModuleSpec(fullname, _Loader(self._figures))  # type: ignore[arg-type]  # none by name
        if fullname != "matplotlib":
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def exec_module(module: types.ModuleType) -> None:
                run(module)
                self._figures.adopt(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


class _Loader:
    """Fills the backend; no heir of `importlib.abc.Loader`, which brings 4 ms of imports into each template."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        return None  # a usual one will do

    def exec_module(self, module: types.ModuleType) -> None:
        self._figures.fill(module)
