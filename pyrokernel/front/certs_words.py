"""The words of `pyrokernel certs`: its subcommands, and what each takes. Runs in the caller's process."""

from __future__ import annotations

import argparse

from pyrokernel.front.parsing import Actions, Parser, add_action, add_common, begin_actions

_LONGEST_DAYS = 36500


def add_actions(parser: Parser) -> None:
    """Add the subcommands to the parser of `certs`, which alone shows its help."""
    actions = begin_actions(parser)
    for made in (*_add_making(actions), *_add_ending(actions), *_add_looking(actions)):
        add_common(made)


def _add_making(actions: Actions) -> list[Parser]:
    init = add_action(
        actions,
        "init",
        "certs:init",
        "make an authority, and identities for this machine and account",
        "What is there already is left as it is.",
    )
    init.add_argument("authority", nargs="?", default="", metavar="NAME", help="its name (default: this machine's)")
    init.add_argument("--user", default="", metavar="NAME", help="name of the user (default: that of the account)")
    issue = add_action(
        actions,
        "issue",
        "certs:issue",
        "make an identity for a user, and say where to copy it",
    )
    issue.add_argument("user", metavar="USER", help="who")
    host = add_action(
        actions,
        "issue-host",
        "certs:issue_host",
        "make an identity for the host or the name server of a machine, and say where to copy it",
    )
    host.add_argument("host", metavar="HOST", help="its name, which is also one by which it is reached")
    renew = add_action(
        actions,
        "renew",
        "certs:renew",
        "make a new key and certificate in place of old ones, which stay valid as long as they were",
        "Identities of this machine are replaced where they are; others are to be copied again. To renew what is due "
        "each day, let cron or a systemd timer run: pyrokernel certs renew --due.",
    )
    which = renew.add_mutually_exclusive_group(required=True)
    which.add_argument("renewed", nargs="?", metavar="NAME", help="which")
    which.add_argument("--all", action="store_true", help="all that were not revoked")
    which.add_argument("--due", action="store_true", help="those in the last third of their life")
    for parser in (init, host, renew):
        parser.add_argument(
            "--name",
            action="append",
            dest="names",
            metavar="DNS|IP",
            help="name or address by which the host is reached as well (may be repeated)",
        )
    for parser in (host, renew):
        parser.add_argument(
            "--shared",
            action="store_true",
            help="allow names that other hosts have as well, as behind one router: each can pass for the others",
        )
    usual = {init: "3650, for the authority", issue: "30", host: "90", renew: "as before"}
    for parser, default in usual.items():
        parser.add_argument("--days", type=_days, metavar="N", help=f"how long it is valid (default: {default})")
        _add_ca(parser)
        _add_json(parser)
    return [init, issue, host, renew]


def _add_ending(actions: Actions) -> list[Parser]:
    revoke = add_action(
        actions,
        "revoke",
        "certs:revoke",
        "end all certificates of a user or host before their time",
        "Identities of this machine get the new list at once.",
    )
    revoke.add_argument("revoked", metavar="NAME", help="whose")
    _add_ca(revoke)
    _add_json(revoke)
    return [revoke]


def _add_looking(actions: Actions) -> list[Parser]:
    listing = add_action(
        actions, "list", "certs:list_records", "list what the authority issued, the newest certificate of each name"
    )
    listing.add_argument("--all", action="store_true", help="the older ones as well")
    show = add_action(
        actions,
        "show",
        "certs:show",
        "say whose a certificate is, how long it is valid, who signed it, and whether it was revoked",
    )
    show.add_argument(
        "shown",
        nargs="?",
        default="",
        metavar="NAME|FILE",
        help="of whom, or a file or identity directory (default: the identities of this machine)",
    )
    for parser in (listing, show):
        _add_ca(parser)
        _add_json(parser)
    env = add_action(
        actions,
        "env",
        "certs:env",
        "print the variables by which stock pyro5-ns and pyro5-nsc use an identity, and write them to its file env",
        'In a shell: eval "$(pyrokernel certs env)". After an identity was copied this writes where it lies now. '
        "The file is one for systemd (EnvironmentFile) and compose as well.",
    )
    env.add_argument(
        "directory", nargs="?", default="", metavar="DIR", help="identity directory (default: those of this machine)"
    )
    return [listing, show, env]


def _add_ca(parser: Parser) -> None:
    parser.add_argument(
        "--ca", default="", metavar="DIR", help="directory of the authority (default: ca beside the configuration file)"
    )


def _add_json(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="answer in JSON")


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = 0.0
    if not 0 < days <= _LONGEST_DAYS:  # also refuses nan
        raise argparse.ArgumentTypeError(f"{text!r} is no number of days up to {_LONGEST_DAYS:,}, such as 30")
    return days
