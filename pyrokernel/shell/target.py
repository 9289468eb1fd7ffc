"""The group that Python goes to, chosen by words and looked up anew for each cell. Runs in the shell process."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pyrokernel.client.group import Group
from pyrokernel.client.mesh import Mesh
from pyrokernel.errors import PyrokernelError
from pyrokernel.texts import label


class Target:
    """What `use` chose.

    A kernel that was restarted since its last cell, or that left the group or joined it, is
    told of before anything runs: code that expects yesterday's variables shall not meet an
    empty namespace unawares.

    Args:
        mesh: Where the kernels are.
        words: Names, ranges, patterns, "tag:WORD" or "all"; none means all.
        tell: Takes a sentence about who joined or left the group.

    Attributes:
        words: As given.
        group: The kernels they meant when they were last looked up.
    """

    def __init__(
        self, mesh: Mesh, words: Iterable[str] = (), *, tell: Callable[[str], None] = lambda sentence: None
    ) -> None:
        self.mesh = mesh
        self._tell = tell
        self.words: list[str] = []
        self.group = Group(mesh, [])
        self.use(words)

    def use(self, words: Iterable[str]) -> None:
        """Choose kernels.

        Raises:
            KernelNotFoundError: A word means none; the choice stays as it was.
        """
        chosen = list(words)
        self.group = self.mesh.select(chosen)
        self.words = chosen

    def anew(self, words: Iterable[str] = ()) -> Group:
        """Return the kernels that words mean now; none mean the current group's, whose instances are not looked at.

        Raises:
            KernelNotFoundError: A word means none.
        """
        chosen = list(words)
        if chosen:
            return self.mesh.select(chosen)
        known = {kernel.name: kernel for kernel in self.group}
        group = self.mesh.select(self.words)
        # Those that were restarted stay known as they were: the next cell tells of them.
        self.group = Group(self.mesh, [known.get(kernel.name, kernel) for kernel in group])
        joined = [name for name in group.names if name not in known]
        left = [name for name in known if name not in group.names]
        if joined and known:
            self._tell(f"{label(joined)} joined the group")
        if left:
            self._tell(f"{label(left)} left the group")
        return group

    def refresh(self) -> list[str]:
        """Look the kernels up again; return the names of those that are other instances than before."""
        group = self.anew()
        before = {kernel.name: kernel.instance for kernel in self.group}
        self.group = group
        return [kernel.name for kernel in group if kernel.instance != before[kernel.name]]

    def settle(self) -> None:
        """Take the instances that are there now for known: whoever asks was told, or caused the change."""
        try:
            self.group = self.mesh.select(self.words)
        except PyrokernelError:
            return  # nobody answers to these words just now; the next cell says so

    def offered(self) -> list[str]:
        """Return words that mean kernels now: their names, their tags, and "all"."""
        tags = self.mesh.tags()
        return [*tags, *(f"tag:{tag}" for tag in sorted(set().union(*tags.values()))), "all"]

    @property
    def prompt(self) -> str:
        """How the group is named at the prompt."""
        names = self.group.names
        return names[0] if len(names) == 1 else f"{len(names)} kernels"
