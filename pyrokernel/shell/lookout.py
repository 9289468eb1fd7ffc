"""What the prompt says of the kernels: how many, how many busy or gone. Runs in the shell process, in a thread.

Nothing here holds up a key: the thread looks while the prompt waits, and the prompt shows what was seen last.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Mapping, Sequence

from pyrokernel.client.group import Group
from pyrokernel.client.kernel import Kernel
from pyrokernel.client.listing import ask_all
from pyrokernel.client.mesh import Mesh
from pyrokernel.errors import KernelNotFoundError
from pyrokernel.shell.target import Target

AGAIN_SECONDS = 3.0
"""How often the kernels are looked at while the prompt waits."""

_FIRST_SECONDS = 0.05
"""Lines that follow each other faster, as in a paste, are not worth a look between them."""

_ANSWER_SECONDS = 0.5


@dataclasses.dataclass(frozen=True)
class View:
    """The kernels of the group as they were seen.

    Attributes:
        names: Those there are.
        busy: How many of them run something.
        fresh: How many are other instances than the shell knows, so that variables are gone.
        gone: Those there were before, and are no more.
        revisions: By instance, how often its commands have changed.
    """

    names: Sequence[str]
    busy: int = 0
    fresh: int = 0
    gone: Sequence[str] = ()
    revisions: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @property
    def prompt(self) -> str:
        """What stands before the sign of the prompt."""
        names = self.names or self.gone
        who = names[0] if len(names) == 1 else f"{len(names)} kernels"
        counts = [(self.busy, "busy"), (self.fresh, "restarted"), (len(self.gone), "gone")]
        alone = len({*self.names, *self.gone}) == 1
        states = [word if alone else f"{count} {word}" for count, word in counts if count]
        return f"{who} ({', '.join(states)})" if states else who


def look(target: Target) -> View:
    """Look at the kernels that the words of a target mean now.

    Raises:
        PyrokernelError: Nobody can say.
    """
    known = {kernel.name: kernel.instance for kernel in target.group}
    group = _select(target.mesh, target.words)
    if not group:
        return View((), gone=list(known))
    abouts, errors, missing = ask_all(group, "describe", timeout=_ANSWER_SECONDS)
    alive = [kernel for kernel in group if kernel.name not in errors]
    return View(
        names=[kernel.name for kernel in alive],
        # One that does not answer holds its interpreter.
        busy=len(missing) + sum(bool(about["running"]) for about in abouts.values()),
        fresh=sum(kernel.instance != known.get(kernel.name, kernel.instance) for kernel in alive),
        gone=[name for name in known if name not in {kernel.name for kernel in alive}],
        revisions={about["instance"]: int(about.get("commands", 0)) for about in abouts.values()},
    )


def _select(mesh: Mesh, words: Sequence[str]) -> Group:
    """Return the kernels that words mean; a word that means none by now is passed over."""
    found: dict[str, Kernel] = {}
    for word in words or ["all"]:
        try:
            found.update((kernel.name, kernel) for kernel in mesh.select([word]))
        except KernelNotFoundError:
            continue
    return Group(mesh, found.values())


class Lookout:
    """Looks at the kernels while the prompt waits: soon after it appears, and every few seconds.

    Args:
        see: Returns what there is to see.
        tell: Takes it.
        seconds: Between two looks.
    """

    def __init__(
        self, see: Callable[[], View], tell: Callable[[View], None], *, seconds: float = AGAIN_SECONDS
    ) -> None:
        self._see, self._tell, self._seconds = see, tell, seconds
        self._changed = threading.Condition()
        self._over = self._waits = False
        self._turn = 0
        self._thread = threading.Thread(target=self._work, name="lookout", daemon=True)

    def resume(self) -> None:
        """Begin to look, or go on: the prompt waits."""
        with self._changed:
            if self._over:
                return
            self._turn += 1
            self._waits = True
            self._changed.notify_all()
        if not self._thread.is_alive():
            self._thread.start()

    def look_again(self) -> None:
        """Look soon, because something has happened (any thread)."""
        with self._changed:
            self._turn += 1
            self._changed.notify_all()

    def pause(self) -> None:
        """Stop looking: a line was entered. A look that is under way is not told, it may have seen that line run."""
        with self._changed:
            self._waits = False

    def close(self) -> None:
        """End; a look that is under way ends soon, and is not told."""
        with self._changed:
            self._over = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(2 * _ANSWER_SECONDS)

    def _work(self) -> None:
        turn = 0
        while turn := self._due(turn):
            seen = self._look()
            if seen is not None and self._is_at(turn):
                self._tell(seen)

    def _due(self, before: int) -> int:
        """Wait for the next look: soon in a new turn, after a while in the same; return which it is, 0 at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._over or self._turn != before, self._seconds if before else None)
            while not self._over:
                turn = self._turn
                self._changed.wait_for(lambda: self._over or self._turn != turn, _FIRST_SECONDS)  # noqa: B023
                if self._waits and self._turn == turn:
                    return turn
                self._changed.wait_for(lambda: self._over or self._waits)
            return 0

    def _look(self) -> View | None:
        try:
            return self._see()
        except Exception:  # noqa: BLE001 - nobody can say just now; whoever runs a cell is told why
            return None

    def _is_at(self, turn: int) -> bool:
        """Whether the prompt still waits, and nothing has happened since that turn began."""
        with self._changed:
            return self._waits and not self._over and self._turn == turn
