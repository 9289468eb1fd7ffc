"""How to serve: from `[plugins.terminal]` and the command line. Runs in the terminal server."""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyrokernel.errors import AccessRefusedError, SettingsError
from pyrokernel.settings import Settings, configuration_dir, parse_span

from pyrokernel_terminal.accounts import User


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """How to serve; each is a key of `[plugins.terminal]`, and an option of the command line.

    Attributes:
        ssh: "HOST:PORT" to serve SSH at; "" for not at all.
        telnet: Likewise, Telnet; only on loopback, unless `telnet_in_the_clear`.
        telnet_as: NAME or NAME:ROLE that everybody is who comes by Telnet.
        telnet_in_the_clear: Serve Telnet beyond this machine all the same.
        users: File that says who may come in by SSH; "" for `terminal-users.toml` beside the configuration file.
        banner: File with what is shown before a session; "" for none.
        idle: Seconds without a key after which a session ends; 0 for never.
        sessions, per_user: How many sessions there may be at once, and of each user.
    """

    ssh: str = "127.0.0.1:8022"
    telnet: str = ""
    telnet_as: str = "telnet"
    telnet_in_the_clear: bool = False
    users: str = ""
    banner: str = ""
    idle: float = 3600.0
    sessions: int = 32
    per_user: int = 8

    def __post_init__(self) -> None:
        User.of(self.telnet_as)
        for name in ("sessions", "per_user"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} must be above 0, not {getattr(self, name)}")
        if not 0 <= self.idle < float("inf"):
            raise SettingsError(f"idle must be a time, or 0 for never, not {self.idle}")
        if self.telnet and not is_loopback(self.telnet) and not self.telnet_in_the_clear:
            raise AccessRefusedError(
                f"Telnet at {self.telnet} would show every key to whoever is on the way, and let anybody in as "
                f"{User.of(self.telnet_as).act_for}; serve it on 127.0.0.1, or use SSH, or say --telnet-in-the-clear"
            )

    @classmethod
    def read(cls, settings: Settings, given: Mapping[str, Any]) -> Options:
        """Read the section of the settings, and what the command line says (None: nothing) over it.

        Raises:
            SettingsError: A name is unknown, or a value is of the wrong kind.
            AccessRefusedError: Telnet beyond this machine was not insisted on.
        """
        section = dict(settings.plugins.get("terminal", {}))
        known = {field.name: field.type for field in dataclasses.fields(cls)}
        for name in section:
            if name not in known:
                raise SettingsError(f"[plugins.terminal] has no {name!r}; it has {', '.join(known)}")
        values = section | {name: value for name, value in given.items() if value is not None}
        return cls(**{name: _convert(name, value, known[name]) for name, value in values.items()})

    @property
    def users_file(self) -> Path:
        """Where the users are."""
        return Path(self.users).expanduser() if self.users else configuration_dir() / "terminal-users.toml"


def split(address: str) -> tuple[str, int]:
    """Return host and port of an address.

    Raises:
        SettingsError: It has not both.
    """
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isdecimal() and int(port) < 65536):
        raise SettingsError(f"an address is HOST:PORT, such as 127.0.0.1:8022, not {address!r}")
    return host.strip("[]"), int(port)


def is_loopback(address: str) -> bool:
    """Whether an address is reached from this machine only."""
    host, _ = split(address)
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _convert(name: str, value: Any, kind: Any) -> Any:
    wrong = SettingsError(f"[plugins.terminal] {name}: {value!r} is not a {kind}")
    if kind == "float":
        try:
            return parse_span(value)
        except ValueError as error:
            raise SettingsError(f"[plugins.terminal] {name}: {error}") from error
    if type(value).__name__ != kind:
        raise wrong
    return value
