"""URLs of references: what is in them, written and read. Runs in the caller's process."""

from __future__ import annotations

import dataclasses
import re
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from pyrokernel.errors import SettingsError
from pyrokernel.settings import check_name

SCHEME = "pyrokernel"

_MAX_CHARS = 2000
_FORM = f"{SCHEME}://KERNEL/INSTANCE/TOKEN?ns=ADDRESS&mesh=NAME"


@dataclasses.dataclass(frozen=True)
class ReferenceUrl:
    """What is needed to reach an object from anywhere.

    Attributes:
        kernel, instance: Where it is, and in which life of that kernel.
        token: What reaches it there; whoever knows it may use it.
        ns, mesh: Address of the name server, and the name of the mesh.
    """

    kernel: str
    instance: str
    token: str
    ns: str
    mesh: str

    def __str__(self) -> str:
        path = "/".join(quote(part, safe="") for part in (self.kernel, self.instance, self.token))
        return f"{SCHEME}://{path}?{urlencode({'ns': self.ns, 'mesh': self.mesh})}"

    @classmethod
    def parse(cls, text: str) -> ReferenceUrl:
        """Read a URL.

        Raises:
            SettingsError: It is none, or not whole.
        """
        if len(text) > _MAX_CHARS or not text.isprintable():
            raise SettingsError(f"this is no URL of a reference; one reads {_FORM}")
        try:
            parts = urlsplit(text.strip())
            fields = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True)
        except ValueError as error:
            raise SettingsError(f"{text!r} is no URL of a reference ({error}); one reads {_FORM}") from error
        found = re.fullmatch(r"/([0-9a-f]{16})/([A-Za-z0-9_-]{16,128})", parts.path)
        given = dict(fields)
        if parts.scheme != SCHEME or not found or parts.fragment or set(given) != {"ns", "mesh"} or len(fields) != 2:
            raise SettingsError(f"{text!r} is no URL of a reference, or a part of it is missing; one reads {_FORM}")
        if not given["ns"]:
            raise SettingsError(f"{text!r} does not say where its name server is; one reads {_FORM}")
        kernel = check_name(parts.netloc, "kernel")
        return cls(kernel, found[1], found[2], given["ns"], check_name(given["mesh"], "mesh"))
