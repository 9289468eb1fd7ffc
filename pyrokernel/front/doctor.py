"""`doctor`: what is configured, reachable and wrong, and the command that mends it. Runs in the caller's process."""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pyrokernel import __version__
from pyrokernel.client.calls import kernel_request
from pyrokernel.client.contributions import ask_plugins, describe_problems
from pyrokernel.client.inits import await_init
from pyrokernel.client.links import Link, ask, ask_each
from pyrokernel.client.mesh import Mesh
from pyrokernel.errors import (
    AccessRefusedError,
    HostError,
    KernelNotFoundError,
    NameServerNotFoundError,
    PyrokernelError,
    SettingsError,
    StateCorruptError,
    StateStorageError,
    VersionMismatchError,
)
from pyrokernel.front.exits import ExitCode
from pyrokernel.front.identities import check_identities
from pyrokernel.front.inits import advise_restart
from pyrokernel.front.machine import Finding, check_machine, origins
from pyrokernel.front.nameserver_places import ways_to_serve
from pyrokernel.front.plugins import load_here
from pyrokernel.front.reach import described_here, open_mesh, settings_of, without_name_server
from pyrokernel.front.state_files import describe_backup
from pyrokernel.front.terminal import paint, say, say_json
from pyrokernel.messages import HOST_OBJECT, PROTOCOL_VERSION, STATE_OBJECT, KernelStatus, PluginInfo
from pyrokernel.policy import Policy
from pyrokernel.settings import Settings, command_line
from pyrokernel.state.backups import Backups
from pyrokernel.texts import one_line, plural, span
from pyrokernel.wire.fanout import Request
from pyrokernel.wire.identity import Identity

_PATIENCE_SECONDS = 2.0
_MARKS = {"ok": ("ok", "green"), "note": ("note", "yellow"), "wrong": ("WRONG", "red")}


def main(args: argparse.Namespace) -> int:
    """Look at everything and report."""
    settings = settings_of(args)
    configured = origins(settings, vars(args))
    findings = [*check_machine(settings), *check_identities(settings), *check_policy(settings)]
    # Without its directory no part of the mesh can be reached, which would only be said again and again.
    if not any(finding.level == "wrong" and finding.about == "runtime dir" for finding in findings):
        findings += check_mesh(settings)
    wrong = [finding for finding in findings if finding.level == "wrong"]
    if args.json:
        say_json(
            {
                "version": __version__,
                "protocol": PROTOCOL_VERSION,
                "settings": {name: {"value": value, "from": origin} for name, (value, origin) in configured.items()},
                "findings": [dataclasses.asdict(finding) for finding in findings],
                "well": not wrong,
            }
        )
        return ExitCode.UNWELL if wrong else ExitCode.OK
    say(f"pyrokernel {__version__}, protocol {PROTOCOL_VERSION}")
    say("settings")
    for name, (value, origin) in configured.items():
        say(f"  {name:<17} {value!r:<24} {origin}")
    say("findings")
    for finding in findings:
        word, style = _MARKS[finding.level]
        say(f"  {paint(f'{word:<5}', style, sys.stdout)}  {finding.about:<12} {finding.text}")
        if finding.remedy:
            say(f"  {'':<5}  {'':<12} mend it: {finding.remedy}")
    say(f"{len(wrong)} wrong" if wrong else "all is well")
    return ExitCode.UNWELL if wrong else ExitCode.OK


def check_policy(settings: Settings) -> Iterator[Finding]:
    """Read the policy, if there is a file."""
    try:
        policy = Policy.load(settings.policy_file)
    except SettingsError as error:
        text = f"{error}; until it is mended the last good one holds, and no gateway starts"
        yield Finding("wrong", "policy", text, f"correct {settings.policy_file}, then: pyrokernel policy check")
        return
    if settings.policy_file.exists():
        lines = len(policy.users) + len(policy.hosts) + sum(len(roles) for _, roles in policy.kernels)
        yield Finding("ok", "policy", f"{settings.policy_file}: {plural(lines, 'line')}, default {policy.default.word}")


def check_mesh(settings: Settings) -> Iterator[Finding]:
    """Ask name server, hosts and kernels."""
    begun = time.perf_counter()
    try:
        mesh = open_mesh(settings)
    except NameServerNotFoundError as error:
        if settings.ns or settings.joined:
            text = without_name_server(settings) or str(error).rpartition("; ")[0]
            yield Finding("wrong", "name server", text, ways_to_serve(settings.ns_address))
        else:
            serve = command_line(settings, "serve --detach")
            yield Finding("note", "mesh", f"{settings.mesh!r} is not running on this machine; start it: {serve}")
            yield from check_plugins({"": load_here(settings)})
        return
    except AccessRefusedError as error:  # which says what to do
        yield Finding("wrong", "name server", str(error))
        return
    except PyrokernelError as error:
        yield Finding("wrong", "name server", str(error), command_line(settings, "serve --detach"))
        return
    with mesh:
        took = span(time.perf_counter() - begun)
        yield Finding("ok", "name server", f"{settings.ns_address} answers in {took}")
        yield from check_name(mesh)
        yield from _check_hosts(mesh)
        yield from _check_kernels(mesh)
        yield check_state(mesh)
        yield from check_plugins(ask_plugins(mesh[:], _PATIENCE_SECONDS))


def check_name(mesh: Mesh) -> Iterator[Finding]:
    """Say that the user's certificate counts for nothing here, where one is let in by the account and as another."""
    try:
        name = Identity.load(mesh.settings.certs_dir, "user").name
        user, role = mesh.me()
    except (PyrokernelError, TimeoutError):  # of which others tell
        return
    if name != user and not mesh.settings.acts_for:
        text = f"here you are {user} by your account, {role.word} of this mesh; certificate {name!r} counts where you"
        yield Finding("note", "you", f"{text} come from another machine, or from another account of this one")


def _check_hosts(mesh: Mesh) -> Iterator[Finding]:
    hosts = mesh.hosts()
    if not hosts:
        yield Finding("wrong", "host", "no host is registered", command_line(mesh.settings, "serve --detach"))
    found = _ask_timed(dict.fromkeys(hosts, Request(HOST_OBJECT, "describe", ())))
    for host in hosts:
        about, seconds = found[host.name]
        if isinstance(about, VersionMismatchError):
            remedy = command_line(mesh.settings, "stop") + " with the version that started it, then serve"
            yield Finding("wrong", "host", f"{host.name}: {about}", remedy)
        elif isinstance(about, AccessRefusedError):  # which says what to do
            yield Finding("wrong", "host", f"{host.name} cannot be asked: {about}")
        elif isinstance(about, Exception):
            serve = _command_that_brings_back(host.name, mesh.settings)
            forget = command_line(mesh.settings, f"nameserver forget {host.name}")
            text = f"{host.name} does not answer: {about}"
            yield Finding("wrong", "host", text, f"{serve}, on {host.name}; if it is gone for good: {forget}")
        else:
            yield Finding("ok", "host", f"{host.name} (process {about['pid']}) answers in {span(seconds)}")


def _command_that_brings_back(host: str, settings: Settings) -> str:
    """Return the command by which a host is in this mesh again; a machine that was switched off does not know which."""
    serve = command_line(settings, "serve --detach")
    if host == settings.host_name or "--ns " in serve:
        return serve
    ns = settings.ns_address
    if ns.startswith("./u:"):  # that of the host here, which others reach as they reach the host
        ns = str(described_here(settings).get("address", ""))
    return f"{serve} --join {ns}" if ns else serve


def _check_kernels(mesh: Mesh) -> Iterator[Finding]:
    roster = mesh.roster()
    infos = roster.described()
    here = ".".join(map(str, sys.version_info[:2]))
    found = _ask_timed({kernel.link: kernel_request("ping") for kernel in mesh[:]})
    for info in infos:
        name = info.name
        about = f"kernel {name}"
        if info.status == KernelStatus.DEAD:
            remedy = command_line(mesh.settings, f"restart {name}")
            yield Finding("wrong", about, f"dead: {one_line(info.cause, 200)}", remedy)
            continue
        if info.host in roster.silent and not info.answers:
            yield Finding("note", about, f"its host {info.host} does not answer, nor does it")
            continue
        answer, seconds = found.get(name, ("", math.nan))  # one that has come meanwhile was not asked
        if isinstance(answer, Exception) or not info.answers:
            # A C call that holds the interpreter is no fault by itself: it may be the work.
            text = f"does not answer ({info.note or answer}); if that is not its work: "
            yield Finding("note", about, text + command_line(mesh.settings, f"interrupt {name} --kill"))
            continue
        state = f"{info.status}, answers in {'?' if math.isnan(seconds) else span(seconds)}"
        if info.init_error:
            if info.init_error.startswith("ship "):  # what was shipped earlier is loaded before the init file runs
                failed = one_line(info.init_error, 200)
            else:
                end = await_init(mesh[name].link, 0.0)
                failed = f"its init file failed: {end or one_line(info.init_error, 200)}"
            text = f"{state}, but {failed}"
            remedy = advise_restart([name], mesh.settings, [name] if info.protected else [])
            yield Finding("wrong", about, text, remedy)
        else:
            yield Finding("ok", about, state)
        python = info.python
        if python and python.rpartition(".")[0] != here:
            text = f"runs Python {python}, this is {here}: functions sent there may not load"
            yield Finding("wrong", about, text, f"run pyrokernel from the environment of Python {python}")
        if info.journal_error:
            text = f"cannot write its journal: {info.journal_error}"
            yield Finding("wrong", about, text, f"free space in {mesh.settings.mesh_state_dir}")


def check_state(mesh: Mesh) -> Finding:
    """Say where the shared state is, and how it is; what was never used is not started for that."""
    about = "shared state"
    try:
        host = mesh.state_host()
        directory = Path(mesh.ask_host(host, "describe", timeout=_PATIENCE_SECONDS)["shared_dir"])
        theirs = _is_closed(directory)
        if not theirs and not directory.exists():
            return Finding("ok", about, "not used yet; the first use starts it")
        begun = time.perf_counter()
        link = mesh.find_state(start=not theirs)
        told = ask(link, Request(STATE_OBJECT, "describe", ()), _PATIENCE_SECONDS)
        took = span(time.perf_counter() - begun)
    except KernelNotFoundError:
        return Finding("note", about, f"does not run; {directory} belongs to another account: not looked at")
    except HostError as error:  # which host it is, several being there, is a setting
        return Finding("wrong", about, str(error))
    except StateCorruptError as error:
        remedy = command_line(mesh.settings, f"state restore {error.backup}") if error.backup else ""
        return Finding("wrong", about, f"damaged, and left as it is: {error.path}: {one_line(error.reason)}", remedy)
    except StateStorageError as error:
        return Finding("wrong", about, str(error), f"free space in {error.path}, or see what holds it")
    except (PyrokernelError, TimeoutError) as error:
        log_file = mesh.settings.mesh_state_dir / "shared" / "state.log"
        return Finding("wrong", about, f"does not answer: {one_line(str(error), 200)}", f"see {log_file}")
    if theirs:
        backup = "backups not looked at: the folder belongs to another account"
    else:
        newest = Backups(directory).newest()
        backup = f"newest backup {describe_backup(Path(newest))}" if newest else "no backup yet"
    keys = plural(sum(told["keys"].values()), "key")
    where = f"{told['directory']} answers in {took}: {keys}, revision {told['revision']}, {backup}"
    return Finding("ok", about, where)


def _is_closed(directory: Path) -> bool:
    """Whether this account may not look into a directory, or not even at it."""
    try:
        directory.stat()
    except PermissionError:
        return True
    except OSError:
        return False
    return not os.access(directory, os.R_OK | os.X_OK)


def check_plugins(found: Mapping[str, Sequence[PluginInfo]]) -> Iterator[Finding]:
    """Say which plugins failed.

    Args:
        found: The plugins by kernel; the kernel "" is this process.
    """
    names = {info.name for infos in found.values() for info in infos}
    failed = {info.name for infos in found.values() for info in infos if info.problems}
    for line in describe_problems(found):
        yield Finding("wrong", "plugin", line, "correct it, or --no-plugin NAME; kernels try again when they restart")
    if names - failed:
        yield Finding("ok", "plugins", ", ".join(sorted(names - failed)))


def _ask_timed(requests: Mapping[Link, Request]) -> dict[str, tuple[Any, float]]:
    """Ask all at once, so that those that are lost cost one wait together; those that answer then again, for the time.

    Returns:
        By name: what was answered, or as an exception why nothing was, and what a call took in seconds; NaN for none.
    """
    found: dict[str, tuple[Any, float]] = {}
    first = ask_each(requests, _PATIENCE_SECONDS)
    for link, request in requests.items():
        answer, seconds = first[link.name], math.nan
        if not isinstance(answer, Exception):
            begun = time.perf_counter()
            answer = ask_each({link: request}, _PATIENCE_SECONDS)[link.name]
            seconds = time.perf_counter() - begun
        found[link.name] = (answer, seconds)
    return found
