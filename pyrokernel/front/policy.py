"""`policy check`: who may do what on this machine, and which line says so. Runs in the caller's process."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import closing

from pyrokernel.errors import PyrokernelError
from pyrokernel.front.configured import settings_of
from pyrokernel.front.exits import ExitCode
from pyrokernel.front.terminal import note, say, say_json
from pyrokernel.messages import KERNEL_PREFIX
from pyrokernel.policy import HOST, USER, Decider, Policy, Verdict
from pyrokernel.settings import Settings
from pyrokernel.texts import table
from pyrokernel.wire.naming import Directory
from pyrokernel.wire.remote import Credentials
from pyrokernel.wire.trust import account_of_process

_PATIENCE_SECONDS = 3.0


def main(args: argparse.Namespace) -> int:
    """Tell one verdict, or all that the policy's file has lines for."""
    settings = settings_of(args)
    if args.user:
        decider = Decider(settings, account_of_process())
        user, kind, through = args.user, HOST if args.host else USER, args.through
        if user.startswith("host:"):  # as in the record: host:lab2, and ana@lab2
            user, kind = user.removeprefix("host:"), HOST
        elif "@" in user and not through:
            user, _, through = user.partition("@")
        rows = [(args.user, args.kernel, decider.verdict(user, kind, args.kernel, through=through))]
    else:
        rows = list(_all(Policy.load(settings.policy_file, account_of_process())))
    there = _machine_of(settings, args.kernel) if args.kernel else ""
    if there not in ("", settings.host_name):
        note(
            f"{args.kernel} is on {there}, whose own policy decides: ask there; this is what {settings.host_name} says"
        )
    elif settings.ns or settings.listen:
        note(f"this is the policy of {settings.host_name}; kernels of other machines go by the one of theirs")
    if args.json:
        say_json([{"user": user, "kernel": kernel, "role": verdict.role.word, "line": verdict.line,
                   "host": settings.host_name} for user, kernel, verdict in rows])  # fmt: skip
        return ExitCode.OK
    if not args.user and not settings.policy_file.exists():
        note(f"there is no {settings.policy_file}; this holds without one")
    shown = [[user, kernel or "(all)", verdict.role.word, verdict.line] for user, kernel, verdict in rows]
    say(table(("user", "kernel", "role", "by"), shown))
    return ExitCode.OK


def _all(policy: Policy) -> Iterator[tuple[str, str, Verdict]]:
    """Yield what each line says."""
    for pattern, roles in policy.kernels:
        for name, role in roles.items():
            yield name, pattern, Verdict(role, f'[kernels."{pattern}"] {name}')
    for name in policy.users:
        yield name, "", policy.verdict(name)
    if policy.owner not in policy.users:
        yield policy.owner, "", policy.verdict(policy.owner)
    yield "*", "", Verdict(policy.default, "default")
    for name in policy.hosts:
        yield f"host {name}", "", policy.verdict(name, HOST)
    yield "host *", "", policy.verdict("", HOST)


def _machine_of(settings: Settings, kernel: str) -> str:
    """Return the host of a kernel, "" where no name server says it."""
    timeout = min(settings.timeout, _PATIENCE_SECONDS)
    try:
        with closing(
            Directory(settings.ns_address, timeout=timeout, credentials=Credentials.of(settings))
        ) as directory:
            return directory.lookup(KERNEL_PREFIX + kernel).value("host")
    except PyrokernelError:
        return ""  # the policy is there without a mesh, and for kernels to come
