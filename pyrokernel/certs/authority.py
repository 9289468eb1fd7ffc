"""The authority of a mesh: a directory with its key and certificate, and what it issued. Runs in the caller's process.

In the directory are `ca.key`, which never leaves it; `ca.pem`; `index.json`, what was issued; `crl.pem`, what was
revoked; `certificates/SERIAL.pem`, every certificate it made; and `issued/NAME`, identities to be copied to where they
are used. What is issued is in the index before it is anywhere else: there is no certificate that cannot be revoked.
"""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pyrokernel.certs.bundles import is_of, write_bundle
from pyrokernel.certs.crl import is_news, make_crl, number_of, take_over
from pyrokernel.certs.files import locked, write_private
from pyrokernel.certs.index import Index, Record
from pyrokernel.certs.making import CLOCKS_APART, DAYS, certificate_pem, key_pem, make_ca, make_identity
from pyrokernel.errors import AccessRefusedError, SettingsError
from pyrokernel.settings import check_name, private_directory
from pyrokernel.wire.identity import Identity, check_owned, plain_name

__all__ = ["Authority", "create", "exists", "opened", "read_index"]


def exists(directory: Path) -> bool:
    """Tell whether there is an authority in a directory."""
    return (directory / "ca.pem").exists()


def read_index(directory: Path) -> Index:
    """Return what an authority has issued.

    Raises:
        SettingsError: There is no authority.
    """
    _check_exists(directory)
    return Index.read(directory / "index.json")


def create(directory: Path, name: str, *, days: float = DAYS["ca"]) -> bool:
    """Make an authority where there is none yet; return whether it was made.

    Raises:
        AccessRefusedError: Others may enter the directory.
        SettingsError: The name is none.
    """
    check_name(name, "authority")
    private_directory(directory, may_be_link=True)
    with locked(directory):
        if exists(directory):
            return False
        key, cert = make_ca(name, days=days, now=_now())
        write_private(directory / "ca.key", key_pem(key))
        index = Index(crl_number=1)
        index.write(directory / "index.json")
        write_private(directory / "crl.pem", make_crl({}, 1, ca_key=key, ca=cert))
        write_private(directory / "ca.pem", certificate_pem(cert))  # the last: now there is one
        return True


@contextlib.contextmanager
def opened(directory: Path) -> Iterator[Authority]:
    """Use an authority, alone.

    Raises:
        AccessRefusedError: Others may read its key, or another command uses it for too long.
        SettingsError: There is none, or its files are damaged.
    """
    _check_exists(directory)
    check_owned(directory)
    check_owned(directory / "ca.key")
    with locked(directory):
        yield Authority(directory)


class Authority:
    """Issues, renews and revokes. Made by `opened`.

    Args:
        directory: Of its files.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ca_pem = (directory / "ca.pem").read_bytes()
        try:
            self._cert = x509.load_pem_x509_certificate(self.ca_pem)
            key = serialization.load_pem_private_key((directory / "ca.key").read_bytes(), None)
        except (ValueError, TypeError) as error:  # a TypeError where the key has a passphrase
            raise SettingsError(f"the authority in {directory} is damaged ({error}); bring back your backup") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != self._cert.public_key():
            raise SettingsError(f"ca.key and ca.pem in {directory} do not belong together; bring back your backup")
        self._key = key
        if self._cert.not_valid_after_utc <= _now():
            raise SettingsError(
                f"the authority in {directory} expired on {self._cert.not_valid_after_utc:%Y-%m-%d}; begin another: "
                "pyrokernel certs init --ca DIR, and issue all identities anew"
            )
        self.index = Index.read(directory / "index.json")
        if not self._has_crl():  # a command ended between the two
            self._write_crl()

    def issue(
        self,
        kind: str,
        name: str,
        names: Sequence[str] = (),
        *,
        days: float | None = None,
        into: Path | None = None,
        shared: Collection[str] = (),
    ) -> Record:
        """Make an identity for a name that has none that is valid.

        Args:
            kind: "user" or "host".
            name: Of the user or host.
            names: Where a host is reached.
            days: How long it lasts; None for what is usual.
            into: Where it is written; None for `issued/NAME`.
            shared: Those of the names that the certificate of another host may have, too.

        Raises:
            AccessRefusedError: A newer list of what was revoked is known where it is to be written.
            SettingsError: The name has one, also one of the other kind, or is none; or another host is reached by one
                of the names.
        """
        check_name(name, kind)
        now = _now().timestamp()
        for record in self.index.of(name):
            if record.kind != kind:
                raise SettingsError(f"{name} is the name of a {record.kind} here; choose another for the {kind}")
            if record.state(now) in ("valid", "due"):
                more = "".join(f" --name {each}" for each in names if each not in record.names)
                raise SettingsError(
                    f"{kind} {name} has a certificate; for a new one: pyrokernel certs renew {name}{more}"
                )
        self._check_free(name, names, shared, "issue-host")
        return self._make(kind, name, names, days or DAYS[kind], into)

    def renew(
        self,
        name: str,
        names: Sequence[str] = (),
        *,
        days: float | None = None,
        into: Path | None = None,
        shared: Collection[str] = (),
    ) -> Record:
        """Make a new key and certificate for a name, in place of the old, which stays valid as long as it was.

        Args:
            name: Whose.
            names: Where a host is reached as well.
            days: How long it lasts; None for as long as the old one did.
            into: Where it is written; None for where the old one was.
            shared: Those of the names that the certificate of another host may have, too.

        Raises:
            AccessRefusedError: A newer list of what was revoked is known where it is to be written.
            SettingsError: Nothing was issued for the name, or it was revoked; or another host is reached by one of
                the names.
        """
        last = self.newest(name)
        if last.revoked:
            command = "issue" if last.kind == "user" else "issue-host"
            raise SettingsError(
                f"{last.kind} {name} was revoked; to let it in again: pyrokernel certs {command} {name}"
            )
        if names and last.kind == "user":
            raise SettingsError(f"{name} is a user, and --name is for hosts")
        self._check_free(name, [each for each in names if each not in last.names], shared, "renew")
        lasted = (last.ends - last.begins - CLOCKS_APART.total_seconds()) / 86400
        return self._make(last.kind, name, [*last.names, *names], days or lasted, into or self._own_place(last))

    def revoke(self, name: str) -> list[Record]:
        """Revoke all certificates of a name; return those that were not yet.

        Raises:
            SettingsError: Nothing was issued for the name.
        """
        self.newest(name)
        revoked = [record for record in self.index.of(name) if not record.revoked]
        if revoked:
            self.index.revoke(revoked, _now().timestamp())
            self.index.crl_number += 1
            self._save()
            self._write_crl()
        return revoked

    def newest(self, name: str) -> Record:
        """Return the newest certificate of a name.

        Raises:
            SettingsError: Nothing was issued for it.
        """
        found = self.index.of(name)
        if not found:
            raise SettingsError(f"nothing was issued for {name!r} here; see: pyrokernel certs list")
        return found[-1]

    def directory_of(self, record: Record) -> Path:
        """Return where an identity was written."""
        return Path(record.directory) if record.directory else self.directory / "issued" / record.name

    def publish_crl(self, more: Iterable[Path]) -> tuple[list[Path], dict[Path, str]]:
        """Copy the list of what was revoked into identity directories of this machine.

        Args:
            more: Directories to look at besides those of the index.

        Returns:
            Which have it, and why others did not take it: a newer one is known there.
        """
        crl = self._crl()
        here = {self.directory_of(record): bool(record.directory) for record in self.index.records}
        found, refused = [], {}
        for directory, notes in {**dict.fromkeys(more, True), **here}.items():
            if not is_of(directory, self.ca_pem):
                continue
            try:
                take_over(crl, directory, notes=notes)
                found.append(directory)
            except (AccessRefusedError, SettingsError) as error:
                refused[directory] = str(error)
        return found, refused

    def _check_free(self, name: str, names: Iterable[str], shared: Collection[str], action: str) -> None:
        """Refuse what another host is reached by: clients go by that, and would take the one for the other.

        `action` is the subcommand that asks.
        """
        holders = self.index.holders(name, _now().timestamp())
        for each in names:
            holder = None if each in shared else holders.get(plain_name(each))
            if holder is not None:
                raise SettingsError(
                    f"{each} is a name of host {holder.name}, and {name} could pass for that with it; if that host is "
                    f"no more: pyrokernel certs revoke {holder.name}; if both are reached by it, as behind one router: "
                    f"pyrokernel certs {action} {name} --name {each} --shared"
                )

    def _own_place(self, record: Record) -> Path | None:
        """Return where an identity of this machine was written, unless another one lies there now."""
        if not record.directory:
            return None
        place = Path(record.directory)
        free = not (place / "key.pem").exists()
        return place if free or (is_of(place, self.ca_pem) and Identity(place).name == record.name) else None

    def _make(self, kind: str, name: str, names: Sequence[str], days: float, into: Path | None) -> Record:
        names = tuple(dict.fromkeys(names))
        key, cert = make_identity(kind, name, names, ca_key=self._key, ca=self._cert, days=days, now=_now())
        record = Record(
            serial=cert.serial_number,
            kind=kind,
            name=name,
            names=names,
            begins=cert.not_valid_before_utc.timestamp(),
            ends=cert.not_valid_after_utc.timestamp(),
            directory=str(into.absolute()) if into else "",
        )
        place = self.directory_of(record)
        if is_of(place, self.ca_pem):
            is_news(self._crl(), place)  # refuses before there is a record of a certificate that nobody gets
        self.index.records.append(record)
        self._save()
        for folder in ("certificates", "issued"):
            private_directory(self.directory / folder)
        write_private(self.directory / "certificates" / f"{record.serial:x}.pem", certificate_pem(cert))
        pair = {"cert": certificate_pem(cert), "key": key_pem(key)}
        write_bundle(place, ca=self.ca_pem, **pair, crl=self._crl(), here=bool(into))
        return record

    @property
    def crl_pem(self) -> str:
        """The list of what was revoked, as it stands in a file."""
        return self._crl().decode()

    def _has_crl(self) -> bool:
        try:
            return number_of(self._crl(), self.ca_pem) == self.index.crl_number
        except (OSError, ValueError):
            return False

    def _save(self) -> None:
        self.index.write(self.directory / "index.json")

    def _crl(self) -> bytes:
        return (self.directory / "crl.pem").read_bytes()

    def _write_crl(self) -> None:
        revoked = {
            record.serial: datetime.datetime.fromtimestamp(record.revoked, datetime.UTC)
            for record in self.index.records
            if record.revoked
        }
        crl = make_crl(revoked, self.index.crl_number, ca_key=self._key, ca=self._cert)
        write_private(self.directory / "crl.pem", crl)


def _check_exists(directory: Path) -> None:
    if not exists(directory):
        raise SettingsError(
            f"there is no authority in {directory}; make one: pyrokernel certs init, or name it: --ca DIR"
        )


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
