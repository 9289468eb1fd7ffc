"""Late output: what processes and threads write after their cell has ended. Runs in the kernel process."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

from pyrokernel.kernel.spool import Spool
from pyrokernel.kernel.writer import ROUTE, Route, Writer

MOST_SPOOLS = 16
"""Earlier cells whose late output is told apart; beyond, the oldest one's threads count for the current
cell, and what its processes still write is dropped."""

OWN_THREADS = "pyrokernel"
"""Threads whose names begin so belong to the kernel, not to a cell."""


class LateOutput:
    """The spools of earlier cells that may still be written to.

    Every method is called under the lock of the capture.

    Args:
        writer: Writes for the threads.
        drain: Brings what is new in a spool into the journal.
        lose: Tells readers that a spool somebody still writes to is not read any more.
    """

    def __init__(self, writer: Writer, drain: Callable[[Spool], None], lose: Callable[[Spool], None]) -> None:
        self.spools: list[Spool] = []
        self._writer = writer
        self._drain = drain
        self._lose = lose
        self._routes: list[Route] = []
        self._spare: Spool | None = None

    def numbers(self) -> set[int]:
        """Return the numbers that are taken."""
        return {spool.number for spool in (*self.spools, self._spare) if spool is not None}

    def take_spare(self) -> Spool | None:
        """Return an empty spool, None when there is none."""
        spare, self._spare = self._spare, None
        return spare

    def find_threads(self, spool: Spool) -> list[Route]:
        """Make routes for the threads that were started since the last call."""
        routes = []
        for thread in threading.enumerate():
            attributes = thread.__dict__
            if ROUTE not in attributes:
                route = None if thread.name.startswith(OWN_THREADS) else Route(thread, spool)
                attributes[ROUTE] = route
                if route is not None:
                    routes.append(route)
        return routes

    def keep(self, spool: Spool, routes: list[Route]) -> None:
        """Watch the spool of a cell that has ended."""
        self.spools.append(spool)
        self._routes += routes
        self.release()
        while len(self.spools) > MOST_SPOOLS:
            oldest = self.spools.pop(0)
            self._end_routes([route for route in self._routes if route.spool is oldest])
            self._drain(oldest)
            oldest.close_write_fds()
            if oldest.has_writers():
                self._lose(oldest)
            oldest.close(delete=True)

    def drain(self) -> None:
        """Bring what is new into the journal."""
        self._commit()
        for spool in self.spools:
            if spool.has_news():
                self._drain(spool)

    def release(self) -> None:
        """Drain, and let go of spools that nobody can write to any more."""
        self._commit()
        self._end_routes([route for route in self._routes if not route.thread.is_alive()])
        self._writer.route_threads(bool(self._routes))
        needed = {route.spool for route in self._routes}
        for spool in self.spools[:]:
            if spool not in needed:
                spool.close_write_fds()
                if not spool.has_writers():
                    self._drain(spool)
                    self.spools.remove(spool)
                    self._recycle(spool)
                    continue
            if spool.has_news():
                self._drain(spool)

    def forget(self) -> None:
        """Close everything, in a forked child."""
        for spool in (*self.spools, self._spare):
            if spool is not None:
                spool.close()
        self.spools, self._routes, self._spare = [], [], None

    def _commit(self) -> None:
        for route in self._routes:
            self._writer.commit_route(route)

    def _end_routes(self, routes: list[Route]) -> None:
        for route in routes:
            self._writer.commit_route(route)
            route.spool = None
            self._routes.remove(route)

    def _recycle(self, spool: Spool) -> None:
        if self._spare is None:
            with contextlib.suppress(OSError):  # then it is of no use
                spool.reset()
                self._spare = spool
                return
        spool.close(delete=True)
