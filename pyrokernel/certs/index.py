"""What an authority has issued and revoked: one JSON file, written whole. Runs in the caller's process."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pyrokernel.certs.files import write_private
from pyrokernel.errors import SettingsError
from pyrokernel.wire.identity import plain_name
from pyrokernel.wire.trust import is_loopback

__all__ = ["Index", "Record", "is_due"]

_FORMAT = 1
_LAST_PART = 1 / 3
"""A certificate is due for renewal in this part of its life."""


def is_due(begins: float, ends: float, now: float) -> bool:
    """Whether what is valid between two moments is to be renewed by now."""
    return ends - now < (ends - begins) * _LAST_PART


@dataclasses.dataclass(frozen=True)
class Record:
    """One certificate.

    Attributes:
        serial: Its number.
        kind: "user" or "host".
        name: Whose.
        names: Where a host is reached.
        begins: Seconds since the epoch from which it is valid.
        ends: Until when.
        directory: Where it was written; "" for `issued/NAME` of the authority.
        revoked: When it was revoked, 0 for never.
    """

    serial: int
    kind: str
    name: str
    names: tuple[str, ...]
    begins: float
    ends: float
    directory: str
    revoked: float = 0.0

    def state(self, now: float) -> str:
        """Return "valid", "due" (in the last third of its life), "expired" or "revoked"."""
        if self.revoked:
            return "revoked"
        if now >= self.ends:
            return "expired"
        return "due" if is_due(self.begins, self.ends, now) else "valid"

    def to_json(self) -> dict[str, Any]:
        """Return it as a script gets it; the serial number in hexadecimal digits, as other tools write it."""
        return {**dataclasses.asdict(self), "serial": f"{self.serial:x}", "names": list(self.names)}


@dataclasses.dataclass
class Index:
    """All certificates of an authority, oldest first.

    Attributes:
        crl_number: Number of the last list of what was revoked.
        records: The certificates.
    """

    crl_number: int = 0
    records: list[Record] = dataclasses.field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> Index:
        """Read the file.

        Raises:
            SettingsError: It is missing or damaged.
        """
        try:
            told = json.loads(path.read_bytes())
            if told["format"] != _FORMAT:
                raise SettingsError(f"{path} is of format {told['format']}, this version reads {_FORMAT}; update it")
            records = [
                Record(**{**one, "serial": int(one["serial"], 16), "names": tuple(one["names"])})
                for one in told["certificates"]
            ]
            return cls(int(told["crl_number"]), records)
        except FileNotFoundError as error:
            raise SettingsError(f"there is no {path}; bring it back from your backup of {path.parent}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, SettingsError):
                raise
            raise SettingsError(f"{path} is damaged ({error}); bring it back from your backup") from error

    def write(self, path: Path) -> None:
        """Write the file."""
        told = {
            "format": _FORMAT,
            "crl_number": self.crl_number,
            "certificates": [record.to_json() for record in self.records],
        }
        write_private(path, json.dumps(told, indent=1).encode())

    def of(self, name: str) -> list[Record]:
        """Return the certificates of a name, oldest first."""
        return [record for record in self.records if record.name == name]

    def newest(self) -> list[Record]:
        """Return the newest certificate of each name."""
        return list({record.name: record for record in self.records}.values())

    def holders(self, name: str, now: float) -> dict[str, Record]:
        """Return by which names hosts are reached that are others than one, by certificates that are valid now.

        Names of loopback are not among them: by those each machine reaches itself.
        """
        valid = [each for each in self.records if each.kind == "host" and each.state(now) in ("valid", "due")]
        return {
            plain_name(reached): record
            for record in valid
            if record.name != name
            for reached in (record.name, *record.names)
            if not is_loopback(reached)
        }

    def revoke(self, revoked: Sequence[Record], when: float) -> None:
        """Mark certificates as revoked."""
        serials = {record.serial for record in revoked}
        self.records = [
            dataclasses.replace(record, revoked=when) if record.serial in serials else record for record in self.records
        ]
