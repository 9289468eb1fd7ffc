"""Identity directories as they are written, and their environment files. Runs in callers, hosts and name servers.

The environment needs nothing but the standard library: it is written anew on machines that hold no authority.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from pyrokernel.certs.files import sweep, write_private
from pyrokernel.settings import ENV_PREFIX, private_directory
from pyrokernel.wire.identity import Identity

__all__ = ["environment", "is_of", "take_revoked", "write_bundle", "write_environment"]

_SETTING = {"user": "CERTS", "host": "HOST_CERTS"}


def write_bundle(directory: Path, *, ca: bytes, cert: bytes, key: bytes, crl: bytes, here: bool) -> None:
    """Write an identity, or put a new one in the place of the old.

    The moment of change is that of key.pem, which has key and certificate in one: however a command is interrupted,
    what is there is the old identity, the new one, or none yet.

    Args:
        directory: Of the identity.
        ca, cert, key, crl: What its files have in them.
        here: Whether it is used where it lies. What is to be copied to another machine notes no list that was seen: it
            would go over what that machine has noted.

    Raises:
        AccessRefusedError, SettingsError: As `crl.take_over`; nothing of the identity was changed.
    """
    from pyrokernel.certs.crl import take_over  # loads `cryptography`, as who makes identities has done already

    private_directory(directory, may_be_link=True)
    sweep(directory)
    write_private(directory / "ca.pem", ca)
    take_over(crl, directory, notes=here)
    write_private(directory / "key.pem", key + cert)
    write_private(directory / "cert.pem", cert)
    write_environment(Identity(directory))


def write_environment(identity: Identity) -> dict[str, str]:
    """Write the file `env` of an identity, for where it lies now; return what is in it.

    Its lines are `NAME=value`, as a shell, systemd (EnvironmentFile) and compose read them.
    """
    found = environment(identity)
    lines = [f"{name}={shlex.quote(value)}\n" for name, value in found.items()]
    write_private(identity.directory / "env", "".join(lines).encode())
    return found


def environment(identity: Identity) -> dict[str, str]:
    """Return the variables by which stock Pyro5 and pyrokernel use an identity."""
    directory = identity.directory.absolute()
    pair, key = str(directory / identity.chain_file.name), str(directory / identity.key_file.name)
    found = {"PYRO_SSL": "1", "PYRO_SSL_REQUIRECLIENTCERT": "1", "PYRO_SSL_CACERTS": str(directory / "ca.pem")}
    if identity.kind == "host":
        found |= {"PYRO_SSL_SERVERCERT": pair, "PYRO_SSL_SERVERKEY": key}
    found |= {"PYRO_SSL_CLIENTCERT": pair, "PYRO_SSL_CLIENTKEY": key}
    return found | {ENV_PREFIX + _SETTING[identity.kind]: str(directory)}


def take_revoked(directory: Path, crl: bytes) -> bool:
    """Take up a list of what was revoked (PEM) in an identity directory, if there is one; say whether it was news.

    A gateway that shows this identity sees it a moment later, and hangs up on those who are on it.

    Raises:
        AccessRefusedError, SettingsError: As `crl.take_over`.
    """
    if not (directory / "ca.pem").exists():  # nobody is let in by a certificate
        return False
    from pyrokernel.certs.crl import take_over  # loads `cryptography`, for those who revoke something

    return take_over(crl, directory)


def is_of(directory: Path, ca: bytes) -> bool:
    """Tell whether an identity is there, and by this authority."""
    try:
        return (directory / "key.pem").exists() and (directory / "ca.pem").read_bytes() == ca
    except FileNotFoundError:
        return False
