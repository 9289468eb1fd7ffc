"""What a user may do in a mesh: three roles, each with all that the one before it may. Runs in every process."""

from __future__ import annotations

import enum

from pyrokernel.errors import SettingsError

__all__ = ["Role"]


class Role(enum.IntEnum):
    """What somebody may do.

    Attributes:
        NOBODY: Nothing; it is shown the door.
        OBSERVER: Look: list, follow, complete, inspect, read plain data of the shared state.
        USER: Run code, and with it whatever the account of the kernels may.
        ADMIN: Start, restart and stop kernels, and revoke what others hold.
    """

    NOBODY = 0
    OBSERVER = 1
    USER = 2
    ADMIN = 3

    @property
    def word(self) -> str:
        """How it is written: "observer", say."""
        return self.name.lower()

    @classmethod
    def of(cls, word: str) -> Role:
        """Return the role of a word.

        Raises:
            SettingsError: There is none.
        """
        try:
            return cls[word.upper()]
        except KeyError:
            known = ", ".join(role.word for role in cls)
            raise SettingsError(f"{word!r} is no role; there are {known}") from None
