"""URLs of references: written, read back, and refused when they are anything else."""

from __future__ import annotations

import pytest

from pyrokernel.client.urls import ReferenceUrl
from pyrokernel.errors import SettingsError

URL = ReferenceUrl("k0", "0123456789abcdef", "Y6ZECjaREyoTBBXH9aQJNUcr", "./u:/tmp/a b/n&s=1.sock", "lab")
TEXT = str(URL)


def test_a_url_is_read_as_it_was_written() -> None:
    assert ReferenceUrl.parse(TEXT) == URL
    assert TEXT.startswith("pyrokernel://k0/0123456789abcdef/Y6ZECjaREyoTBBXH9aQJNUcr?ns=")
    assert " " not in TEXT


def test_white_space_around_it_is_what_mail_adds() -> None:
    assert ReferenceUrl.parse(f"  {TEXT} ") == URL


@pytest.mark.parametrize("name", ["K0", "gpu-1", "a.b_c", "0"])
@pytest.mark.parametrize("ns", ["127.0.0.1:9090", "[::1]:9090", "./u:/run/ns.sock", "./u:/ü/ns.sock"])
def test_every_kernel_and_address_comes_back(name: str, ns: str) -> None:
    url = ReferenceUrl(name, "0123456789abcdef", "A-_0" * 6, ns, "m")
    assert ReferenceUrl.parse(str(url)) == url


@pytest.mark.parametrize(
    "text",
    [
        "",
        "k0",
        "http://k0/0123456789abcdef/Y6ZECjaREyoTBBXH9aQJNUcr?ns=x&mesh=lab",
        TEXT.replace("pyrokernel://", "pyrokernel:"),
        TEXT.replace("0123456789abcdef", "0123456789abcdeg"),
        TEXT.replace("0123456789abcdef/", ""),
        TEXT.replace("Y6ZECjaREyoTBBXH9aQJNUcr", "short"),
        TEXT.replace("Y6ZECjaREyoTBBXH9aQJNUcr", "../../../../etc/passwd"),
        TEXT.replace("k0", "k 0"),
        TEXT.replace("k0", "user@k0"),
        TEXT.replace("//k0", "//"),
        TEXT + "&more=1",
        TEXT + "&ns=other",
        TEXT + "#part",
        TEXT.partition("&mesh")[0],
        TEXT.partition("?")[0],
        "pyrokernel://k0/0123456789abcdef/Y6ZECjaREyoTBBXH9aQJNUcr?ns=&mesh=lab",
        TEXT.replace("mesh=lab", "mesh=l/ab"),
        TEXT + "\n\x00",
        TEXT + "x" * 3000,
        "pyrokernel://[k0/0123456789abcdef/Y6ZECjaREyoTBBXH9aQJNUcr?ns=x&mesh=lab",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(SettingsError):
        ReferenceUrl.parse(text)
