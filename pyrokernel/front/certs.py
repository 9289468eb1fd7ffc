"""`certs`: the authority of a mesh across machines, and the identities it makes. Runs in the caller's process."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyrokernel.certs.bundles import is_of, write_environment
from pyrokernel.errors import PyrokernelError, SettingsError
from pyrokernel.front.configured import settings_of
from pyrokernel.front.exits import ExitCode
from pyrokernel.front.terminal import note, say, say_json
from pyrokernel.settings import Settings, configuration_dir
from pyrokernel.systems import own_uid
from pyrokernel.wire.identity import Identity, names_in, plain_name
from pyrokernel.wire.trust import account

if TYPE_CHECKING:
    from pyrokernel.certs.authority import Authority
    from pyrokernel.certs.index import Record

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_PLACES = {"user": ".config/pyrokernel/certs", "host": ".config/pyrokernel/host"}
"""Where another machine looks for identities, below the home directory."""


def init(args: argparse.Namespace) -> int:
    """Make an authority, and the identities of this machine."""
    settings, directory = settings_of(args), ca_directory(args)
    host, hostname = settings.host_name, as_name(socket.gethostname())
    names = dict.fromkeys([host, *([hostname] if hostname else []), *_LOOPBACK, *(args.names or ())])
    user = args.user or as_name(account(own_uid())) or "user"
    if user == host:
        raise SettingsError(
            f"this machine and you are both called {user}; name yourself: pyrokernel certs init --user NAME"
        )
    made = load_room("authority").create(directory, args.authority or host, **_given_days(args))
    with load_room("authority").opened(directory) as authority:
        records = [
            *_provide(authority, "host", host, list(names), settings.host_certs_dir),
            *_provide(authority, "user", user, [], settings.certs_dir),
        ]
        found = [_told(authority, record) for record in records]
    if args.json:
        say_json({"authority": str(directory), "made": made, "identities": found})
        return ExitCode.OK
    say(f"authority: {directory}{'' if made else ' was there already'}; keep a backup of it, and ca.key to yourself")
    for one in found:
        say(_line_of(one))
    say("another machine: pyrokernel certs issue-host HOST --name ADDRESS; another user: pyrokernel certs issue USER;")
    say("each says what to copy, and where to. This machine lets others in by: pyrokernel serve --listen HOST:PORT")
    return ExitCode.OK


def _lacking(authority: Authority, directory: Path, kind: str, names: Sequence[str]) -> str:
    """Say what an identity that is there is not good for that was asked for, and what mends it."""
    if not is_of(directory, authority.ca_pem):
        return (
            ": another authority made it, and what this one makes is refused there; for the mesh of that one, have the "
            f"rest issued there (pyrokernel certs issue, issue-host); for this one, move {directory} away, and again"
        )
    if kind != "host":
        return ""
    identity = Identity.load(directory)
    known = {plain_name(name) for name in names_in(identity.cert)}
    lacking = [name for name in names if plain_name(name) not in known]
    if not lacking:
        return ""
    renew = " ".join(["pyrokernel certs renew", identity.name, *(f"--name {name}" for name in lacking)])
    copy = "" if authority.directory_of(authority.newest(identity.name)) == directory else ", and copy it there"
    return f": it is not for {', '.join(lacking)}; for that: {renew}{copy}"


def _provide(authority: Authority, kind: str, name: str, names: Sequence[str], directory: Path) -> list[Record]:
    """Write an identity of this machine where there is none."""
    if (directory / "key.pem").exists():
        note(f"{directory} is there already, and left as it is{_lacking(authority, directory, kind, names)}")
        return []
    known = authority.index.of(name)
    if known and known[-1].kind == kind and known[-1].state(time.time()) in ("valid", "due"):
        return [authority.renew(name, names if kind == "host" else (), into=directory)]
    return [authority.issue(kind, name, names, into=directory)]


def issue(args: argparse.Namespace) -> int:
    """Make an identity for a user."""
    return _issue(args, "user", args.user, ())


def issue_host(args: argparse.Namespace) -> int:
    """Make an identity for a host."""
    return _issue(args, "host", args.host, [args.host, *(args.names or ())], shared=args.shared)


def _issue(args: argparse.Namespace, kind: str, name: str, names: Sequence[str], *, shared: bool = False) -> int:
    with load_room("authority").opened(ca_directory(args)) as authority:
        record = authority.issue(kind, name, names, days=args.days, shared=names if shared else ())
        found = _told(authority, record)
    return _answer(args, [found])


def renew(args: argparse.Namespace) -> int:
    """Make new keys and certificates."""
    now = time.time()
    with load_room("authority").opened(ca_directory(args)) as authority:
        if args.renewed:
            chosen = [args.renewed]
        else:
            states = ("due", "expired") if args.due else ("valid", "due", "expired")
            chosen = [record.name for record in authority.index.newest() if record.state(now) in states]
        if args.names and not args.renewed:
            raise SettingsError("--name goes with one host: pyrokernel certs renew HOST --name DNS|IP")
        names = args.names or ()
        shared = names if args.shared else ()
        found = [_told(authority, authority.renew(name, names, days=args.days, shared=shared)) for name in chosen]
    if not found and not args.json:
        note("nothing is due" if args.due else "nothing to renew")
    return _answer(args, found)


def _answer(args: argparse.Namespace, found: Sequence[dict[str, Any]]) -> int:
    """Say what was made and what to copy."""
    if args.json:
        say_json(found)
        return ExitCode.OK
    for one in found:
        say(_line_of(one))
        if one["copy"]:
            say(f"  copy it: {one['copy']}")
    if any(one["copy"] for one in found):
        say('there, for pyro5-ns and pyro5-nsc: eval "$(pyrokernel certs env)"; pyrokernel itself finds it')
    return ExitCode.OK


def revoke(args: argparse.Namespace) -> int:
    """End certificates before their time."""
    settings = settings_of(args)
    with load_room("authority").opened(ca_directory(args)) as authority:
        revoked = authority.revoke(args.revoked)
        told, refused = authority.publish_crl([settings.certs_dir, settings.host_certs_dir])
        hosts, deaf = _spread(settings, authority.crl_pem, args.revoked)
    code = ExitCode.REFUSED if refused else ExitCode.NO_MESH if deaf else ExitCode.OK
    if args.json:
        say_json({"revoked": [record.to_json() for record in revoked], "told": [str(one) for one in told],
                  "refused": {str(one): why for one, why in refused.items()},
                  "hosts": hosts, "unreached": deaf})  # fmt: skip
        return code
    if revoked:
        say(f"revoked {args.revoked}: {len(revoked)} of its certificates will be refused")
    else:
        say(f"{args.revoked} was revoked before")
    note(f"the list is {ca_directory(args) / 'crl.pem'}; it was copied to: {', '.join(map(str, told)) or 'nowhere'}")
    for directory, why in refused.items():
        note(f"not taken in {directory}: {why}")
    if hosts:
        say(f"told {', '.join(hosts)}: whoever is on the list is hung up on within a second")
    for name, why in deaf.items():
        note(f"not told: {name}: {why}; run this again when it is there, or copy crl.pem into its identity directory")
    return code


def _spread(settings: Settings, crl: str, name: str) -> tuple[list[str], dict[str, str]]:
    """Tell the hosts and the name server of the mesh what is revoked; return who was told, and why others were not."""
    from pyrokernel.client.links import ask_each  # the other actions need no mesh
    from pyrokernel.client.mesh import connect
    from pyrokernel.messages import HOST_OBJECT
    from pyrokernel.wire.fanout import Request
    from pyrokernel.wire.naming import Directory
    from pyrokernel.wire.remote import Credentials

    try:
        with connect(settings) as mesh:
            request = Request(HOST_OBJECT, "take_revoked", (crl, name))
            answers = ask_each(dict.fromkeys(mesh.hosts(), request), settings.timeout)
    except PyrokernelError as error:
        if not settings.ns:  # none runs here, and none is named
            return [], {}
        return [], {f"the mesh at {settings.ns}": str(error)}
    deaf = {name: str(answer) for name, answer in answers.items() if isinstance(answer, Exception)}
    told = [name for name in answers if name not in deaf]
    ns = settings.ns_address  # that of a host that has joined needs no naming
    if ns.startswith("./u:"):  # nobody comes in there by a certificate
        return told, deaf
    # One that runs by itself has a gateway of its own, and there may be no host where it is.
    name = f"the name server at {ns}"
    directory = Directory(ns, credentials=Credentials.of(settings))
    try:
        directory.take_revoked(crl)
        told.append(name)
    except AttributeError:
        note(f"{name} is a stock one, which heeds no lists: who is on this one can go on looking names up there")
    except PyrokernelError as error:
        deaf[name] = str(error)
    finally:
        directory.close()
    return told, deaf


def list_records(args: argparse.Namespace) -> int:
    """List what was issued."""
    index, now = load_room("authority").read_index(ca_directory(args)), time.time()
    records = index.records if args.all else index.newest()
    if args.json:
        say_json([{**record.to_json(), "state": record.state(now)} for record in records])
    elif records:
        say(load_room("facts").format_records(records, now))
    else:
        note("nothing was issued yet: pyrokernel certs issue USER, pyrokernel certs issue-host HOST")
    return ExitCode.OK


def show(args: argparse.Namespace) -> int:
    """Say what stands in certificates."""
    settings, directory = settings_of(args), ca_directory(args)
    files = [_file_of(args.shown, directory)] if args.shown else _files_here(settings, directory)
    if not files:
        raise SettingsError("there is no identity on this machine; `pyrokernel certs init` makes one")
    nearby = [settings.certs_dir, settings.host_certs_dir]
    facts = [load_room("facts").facts_of(file, [directory, file.parent, *nearby]) for file in files]
    if args.json:
        say_json([one.to_json() for one in facts])
    else:
        say("\n".join(load_room("facts").format_facts(one, time.time()) for one in facts))
    return ExitCode.OK


def _file_of(shown: str, directory: Path) -> Path:
    """Return the file with the certificate of a name, or the one that is named."""
    path = Path(shown).expanduser()
    if "/" not in shown and load_room("authority").exists(directory):
        known = load_room("authority").read_index(directory).of(shown)
        if known:
            return directory / "certificates" / f"{known[-1].serial:x}.pem"
    if path.is_dir():
        return path / "cert.pem"
    if not path.exists():
        raise SettingsError(f"there is neither a file {shown} nor something issued for that name in {directory}")
    return path


def _files_here(settings: Settings, directory: Path) -> list[Path]:
    files = [settings.certs_dir / "cert.pem", settings.host_certs_dir / "cert.pem", directory / "ca.pem"]
    return [file for file in files if file.exists()]


def env(args: argparse.Namespace) -> int:
    """Print the variables of identities, and write them beside these."""
    settings = settings_of(args)
    found: dict[str, str] = {}
    if args.directory:
        found = write_environment(Identity.load(Path(args.directory)))
    else:
        # The user's after the host's: of what both say, who one is as a client, the user's counts.
        for kind, directory in (("host", settings.host_certs_dir), ("user", settings.certs_dir)):
            if directory.exists() or (kind == "user" and not found):
                found |= write_environment(Identity.load(directory, kind))
    for name, value in found.items():
        say(f"export {name}={shlex.quote(value)}")
    return ExitCode.OK


def _told(authority: Authority, record: Record) -> dict[str, Any]:
    """Return an identity as a script gets it: also where it is, and how to copy it if it is for another machine."""
    directory, place = authority.directory_of(record), _PLACES[record.kind]
    target = record.name if record.kind == "host" else "HOST"
    files = f"{shlex.quote(str(directory))}/*"
    copy = f"ssh {target} mkdir -p -m 700 {place} && scp -p {files} {target}:{place}/"
    return {**record.to_json(), "directory": str(directory), "copy": "" if record.directory else copy}


def _line_of(told: dict[str, Any]) -> str:
    until = time.strftime("%Y-%m-%d", time.localtime(told["ends"]))
    names = f", for {', '.join(told['names'])}" if told["names"] else ""
    distance = load_room("facts").from_now(told["ends"] - time.time())
    return f"{told['kind']} {told['name']}: {told['directory']}, until {until} ({distance}){names}"


def _given_days(args: argparse.Namespace) -> dict[str, float]:
    return {} if args.days is None else {"days": args.days}


def as_name(text: str) -> str:
    """Return the name of an account or machine as it may stand in a certificate, "" if nothing is left of it."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", text).strip(".-")[:64]


def ca_directory(args: argparse.Namespace) -> Path:
    """Return where the authority is."""
    return (Path(args.ca).expanduser() if args.ca else configuration_dir() / "ca").absolute()


def load_room(module: str) -> Any:
    """Import what needs the package cryptography, which is not everywhere.

    Raises:
        PyrokernelError: It is not here.
    """
    try:
        return importlib.import_module(f"pyrokernel.certs.{module}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "cryptography":
            raise
        raise PyrokernelError(
            "pyrokernel certs needs the package cryptography; run: python -m pip install 'pyrokernel[network]'"
        ) from error
