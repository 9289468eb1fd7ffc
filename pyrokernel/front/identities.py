"""What `doctor` says of the certificates of this machine. Runs in the caller's process."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator

from pyrokernel.certs.index import is_due
from pyrokernel.errors import AccessRefusedError, SettingsError
from pyrokernel.front.machine import Finding
from pyrokernel.settings import Settings
from pyrokernel.wire.identity import Identity
from pyrokernel.wire.refusals import trouble_of


def check_identities(settings: Settings) -> Iterator[Finding]:
    """Look at the identities of user and host, and whether they belong together."""
    found = []
    for kind, directory, needed in (
        ("user", settings.certs_dir, bool(settings.certs)),
        ("host", settings.host_certs_dir, bool(settings.host_certs or settings.listen)),
    ):
        if not directory.exists() and not needed:
            continue  # a mesh on one machine wants none
        try:
            identity = Identity.load(directory, kind)
            yield _check(identity)
            found.append(identity)
        except (AccessRefusedError, SettingsError) as error:
            text, _, remedy = str(error).rpartition("; ")
            yield Finding("wrong", f"{kind} cert", text or remedy, remedy.removeprefix("run: ") if text else "")
    if len({identity.ca_file.read_bytes() for identity in found}) > 1:
        yield Finding(
            "wrong",
            "certs",
            f"{found[0].directory} and {found[1].directory} are of different authorities, and refuse each other",
            "take both from one: pyrokernel certs issue, pyrokernel certs issue-host",
        )


def _check(identity: Identity) -> Finding:
    about, trouble = f"{identity.kind} cert", trouble_of(identity)
    if trouble:
        text, _, remedy = trouble.partition("; ")
        return Finding("wrong", about, text, remedy)
    begins, ends = (ssl.cert_time_to_seconds(identity.cert[edge]) for edge in ("notBefore", "notAfter"))
    days = (ends - time.time()) / 86400
    until = time.strftime("%Y-%m-%d", time.localtime(ends))
    text = f"{identity.name}, by authority {_authority(identity)}, until {until}"
    if is_due(begins, ends, time.time()):
        remedy = f"where its authority lies: pyrokernel certs renew {identity.name}, and copy {identity.directory} anew"
        return Finding("note", about, f"{text}: {days:,.1f} days are left", remedy)
    return Finding("ok", about, text)


def _authority(identity: Identity) -> str:
    return next(
        (value for part in identity.ca.get("subject", ()) for key, value in part if key == "commonName"), "without name"
    )
