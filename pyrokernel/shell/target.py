"""The group that Python goes to, chosen by words and looked up anew for each cell. Runs in the shell process."""

from __future__ import annotations

from collections.abc import Iterable

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
        words: Names, patterns, "tag:WORD" or "all"; none means all.

    Attributes:
        words: As given.
        group: The kernels they meant when they were last looked up.
    """

    def __init__(self, mesh: Mesh, words: Iterable[str] = ()) -> None:
        self.mesh = mesh
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
        return self.mesh.select(list(words) or self.words)

    def refresh(self) -> tuple[list[str], list[str]]:
        """Look the kernels up again.

        Returns:
            Names of those that are other instances than before, and what else changed, as sentences.
        """
        before = {kernel.name: kernel.instance for kernel in self.group}
        self.group = self.mesh.select(self.words)
        now = {kernel.name: kernel.instance for kernel in self.group}
        changed = [name for name, instance in now.items() if before.get(name, instance) != instance]
        joined = [name for name in now if name not in before]
        left = [name for name in before if name not in now]
        notes = [f"{label(joined)} joined the group"] if joined and before else []
        notes += [f"{label(left)} left the group"] if left else []
        return changed, notes

    def settle(self) -> None:
        """Take the instances that are there now for known: whoever asks was told, or caused the change."""
        try:
            self.group = self.mesh.select(self.words)
        except PyrokernelError:
            return  # nobody answers to these words just now; the next cell says so

    @property
    def prompt(self) -> str:
        """How the group is named at the prompt."""
        names = self.group.names
        return names[0] if len(names) == 1 else f"{len(names)} kernels"
