"""What a host is told at its start. Runs in whoever starts a host, and in the host process."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Self

from pyrokernel.messages import KernelSpec, Message
from pyrokernel.settings import Settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class HostConfig(Message):
    """Everything a host needs to know.

    Attributes:
        settings: `Settings.dump()` of whoever starts it.
        specs: Kernels to start, `KernelSpec` in wire form.
        ready_fd: Descriptor on which it reports that it is ready, or why not; -1 for none.
        lifeline_fd: Descriptor whose end of file ends the host and its kernels at once; -1 for none.
        private: The mesh belongs to one client (`local()`): its kernels end with the host, its files too.
        detached: Stay when the terminal goes away: own session, SIGHUP ignored, output to `host.log`.
    """

    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    specs: tuple[dict[str, Any], ...] = ()
    ready_fd: int = -1
    lifeline_fd: int = -1
    private: bool = False
    detached: bool = False

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild the configuration; lists become tuples."""
        return super().from_wire({**data, "specs": tuple(data.get("specs") or ())})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote."""
        return cls.from_wire(json.loads(text))

    def to_json(self) -> str:
        """Write the configuration for the standard input of `python -m pyrokernel.host`."""
        return json.dumps(self.to_wire())

    def load_settings(self) -> Settings:
        """Return the settings as an object."""
        return Settings(**self.settings)

    def load_specs(self) -> list[KernelSpec]:
        """Return the declared kernels as objects."""
        return [KernelSpec.from_wire(spec) for spec in self.specs]
