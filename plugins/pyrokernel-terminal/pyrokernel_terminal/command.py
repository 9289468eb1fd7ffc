"""`pyrokernel terminal`: serve, say who may come in, see who is there. Runs in the caller's process."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from pyrokernel.errors import SettingsError
from pyrokernel.roles import Role
from pyrokernel.settings import Settings, parse_span
from pyrokernel.texts import table

from pyrokernel_terminal.accounts import User, read_users, write_users
from pyrokernel_terminal.options import Options
from pyrokernel_terminal.who import ask, describe

_EPILOG = (
    "serve (or nothing): serve until Ctrl-C. add NAME KEYFILE: let in who has the private key to a public one; again, "
    "with another file, to add a key, or with --role alone to change what they may do. remove NAME: let them in no "
    "more, and end their sessions; with KEYFILE, only by those keys. list: who may come in. who: who is there."
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = _EPILOG
    parser.add_argument("action", nargs="?", default="serve", choices=sorted(_ACTIONS), help="what to do, see below")
    parser.add_argument("words", nargs="*", metavar="WORD", help="what it takes")
    parser.add_argument("--role", choices=["observer", "user", "admin"], help="of who is added (default: observer)")
    parser.add_argument("--json", action="store_true", help="list and who: for a script")
    parser.add_argument("--ssh", metavar="HOST:PORT", help='serve SSH there (default: 127.0.0.1:8022; "" for not)')
    parser.add_argument("--telnet", metavar="HOST:PORT", help="serve Telnet there too; on loopback")
    parser.add_argument(
        "--telnet-as", metavar="NAME[:ROLE]", help="who everybody is by Telnet (default: telnet:observer)"
    )
    parser.add_argument(
        "--telnet-in-the-clear",
        action="store_const",
        const=True,
        help="serve it beyond this machine: everybody on the way reads every key, and whoever connects is let in",
    )
    parser.add_argument("--users", metavar="FILE", help="who may come in (default: beside the configuration file)")
    parser.add_argument("--banner", metavar="FILE", help="text that is shown before each session")
    parser.add_argument(
        "--idle", type=_time, metavar="TIME", help="end a session after so long without a key, 0 never (default: 1h)"
    )
    parser.add_argument("--sessions", type=int, metavar="N", help="how many at once (default: 32)")
    parser.add_argument("--per-user", type=int, metavar="N", help="how many of one user (default: 8)")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Do what the first word says."""
    names = ("ssh", "telnet", "telnet_as", "telnet_in_the_clear", "users", "banner", "idle", "sessions", "per_user")
    options = Options.read(settings, {name: getattr(args, name) for name in names})
    action, least, most, usage = _ACTIONS[args.action]
    if not least <= len(args.words) <= most:
        raise SettingsError(f"usage: pyrokernel terminal {usage}")
    if args.role and args.action != "add":
        raise SettingsError("--role is that of one user: pyrokernel terminal add NAME [KEYFILE] --role ROLE")
    return action(args, settings, options)


def _serve(args: argparse.Namespace, settings: Settings, options: Options) -> int:
    from pyrokernel_terminal.server import run_server  # two tenths of a second, for who serves

    return asyncio.run(run_server(settings, options))


def _add(args: argparse.Namespace, settings: Settings, options: Options) -> int:
    name, *key_files = args.words
    keys = [key for key_file in key_files for key in _read_keys(key_file)]
    users = read_users(options.users_file)
    user = users.get(name, User.of(name))
    if name not in users and not keys:
        raise SettingsError(
            f"{name} is new, and needs a key: pyrokernel terminal add {name} KEYFILE, a file such as id.pub"
        )
    if not keys and not args.role:
        raise SettingsError(f"say what {name} gets: a further KEYFILE, or --role")
    role = Role.of(args.role) if args.role else user.role
    users[user.name] = User(user.name, role, tuple(dict.fromkeys([*user.keys, *keys])))
    write_users(options.users_file, users)
    print(f"{user.name} may come in as {role.word}")
    for other in _holders(users.values(), users[user.name]):
        print(f"{other} has a key of {user.name}, too: whoever holds it comes in as either", file=sys.stderr)
    return 0


def _holders(users: Iterable[User], user: User) -> list[str]:
    """Return which others have a key of a user."""
    from pyrokernel_terminal.keys import public_keys  # likewise

    held = public_keys(user)
    return [other.name for other in users if other.name != user.name and public_keys(other) & held]


def _remove(args: argparse.Namespace, settings: Settings, options: Options) -> int:
    from pyrokernel_terminal.keys import without_keys  # likewise

    users = read_users(options.users_file)
    name, *key_files = args.words
    user = users.pop(name, None)
    if user is None:
        raise SettingsError(f"there is no user {name!r} in {options.users_file}; `pyrokernel terminal list` lists them")
    for key_file in key_files:
        users[name] = without_keys(user, _read_keys(key_file))
        if users[name] == user:
            raise SettingsError(f"{name} has no key of {key_file}; `pyrokernel terminal list --json` shows the keys")
    write_users(options.users_file, users)
    what = "by that key no more; sessions that came by it" if key_files else "no more; sessions of theirs"
    print(f"{name} may come in {what} end within seconds")
    return 0


def _read_keys(key_file: str) -> list[str]:
    """Return the public keys of a file, or of standard input for "-".

    Raises:
        SettingsError: It cannot be read, or has something else, or nothing.
    """
    import asyncssh  # likewise

    try:
        text = Path(key_file).expanduser().read_text(encoding="utf-8") if key_file != "-" else sys.stdin.read()
    except (OSError, UnicodeError) as error:
        raise SettingsError(f"cannot read {key_file}: {error}") from error
    if "PRIVATE KEY" in text:
        raise SettingsError(f"{key_file} is a private key, which is nobody's but its owner's; take {key_file}.pub")
    keys = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for key in keys:
        try:
            asyncssh.import_public_key(key)
        except asyncssh.KeyImportError as error:
            raise SettingsError(f"{key_file} has a line that is no public key of OpenSSH: {error}") from error
    if not keys:
        raise SettingsError(f"{key_file} has no key")
    return keys


def _list(args: argparse.Namespace, settings: Settings, options: Options) -> int:
    users = read_users(options.users_file)
    if args.json:
        print(json.dumps({user.name: {"role": user.role.word, "keys": user.keys} for user in users.values()}))
    elif users:
        rows = [(user.name, user.role.word, str(len(user.keys))) for user in users.values()]
        print(table(("USER", "ROLE", "KEYS"), rows))
    else:
        print("nobody may come in by ssh; `pyrokernel terminal add NAME KEYFILE` adds somebody")
    return 0


def _who(args: argparse.Namespace, settings: Settings, options: Options) -> int:
    found = ask(settings)
    print(json.dumps(found or []) if args.json else describe(found))
    return 0 if found is not None else 1


_Action = Callable[[argparse.Namespace, Settings, Options], int]
_ACTIONS: dict[str, tuple[_Action, int, int, str]] = {
    "serve": (_serve, 0, 0, "serve [options]"),
    "add": (_add, 1, 2, "add NAME [KEYFILE] [--role ROLE]"),
    "remove": (_remove, 1, 2, "remove NAME [KEYFILE]"),
    "list": (_list, 0, 0, "list"),
    "who": (_who, 0, 0, "who"),
}
"""What does it, how many words it takes at least and at most, and how it is called."""


def _time(text: str) -> float:
    try:
        return parse_span(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
