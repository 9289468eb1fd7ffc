"""`interrupt`, `restart` and `stop`. Runs in the caller's process."""

from __future__ import annotations

import argparse
import dataclasses
import select
from collections.abc import Sequence

from pyrokernel.client.links import Link, ask
from pyrokernel.errors import KernelUnreachableError, NameServerError, NameServerNotFoundError, PyrokernelError
from pyrokernel.front.cells import take_back
from pyrokernel.front.exits import ExitCode, code_of, worst
from pyrokernel.front.joining import meant
from pyrokernel.front.reach import host_here, living_records, open_mesh, settings_of
from pyrokernel.front.serve import start_detached
from pyrokernel.front.terminal import complain, note, say, say_json
from pyrokernel.host.processes import ProcessWatch
from pyrokernel.messages import HOST_OBJECT, START_SECONDS, STOP_SECONDS, Receipt
from pyrokernel.settings import Settings, command_line
from pyrokernel.texts import describe_receipts, label, plural
from pyrokernel.wire.fanout import Request

_OUTCOME_CODES = {"unanswered": ExitCode.TIMEOUT, "caught": ExitCode.TIMEOUT, "refused": ExitCode.REFUSED}


def interrupt(args: argparse.Namespace) -> int:
    """Interrupt what runs, and say what became of it."""
    settings = settings_of(args)
    with open_mesh(settings) as mesh:
        group = mesh.select(args.words)
        cell, cancelled = take_back(group, args.cell) if args.cell else ("", [])
        receipts = group.interrupt(cell, escalate=args.kill)
        for name in cancelled:
            receipts[name] = Receipt(kernel=name, cell=cell, outcome="cancelled", detail="before it started")
    if args.json:
        say_json([receipt.to_wire() for receipt in receipts.values()])
    else:
        for line in describe_receipts(receipts.values(), command_line(settings, "interrupt --kill")):
            say(line)
    return worst(_OUTCOME_CODES.get(receipt.outcome, ExitCode.OK) for receipt in receipts.values())


def restart(args: argparse.Namespace) -> int:
    """Give kernels a fresh instance; the dead come back too."""
    with open_mesh(settings_of(args)) as mesh:
        started = mesh.restart(args.words, force=args.force)
    if args.json:
        say_json([info.to_wire() for info in started])
    else:
        for info in started:
            say(f"{info.name}: restarted, instance {info.instance}")
    return ExitCode.OK


def stop(args: argparse.Namespace) -> int:
    """End some kernels, or everything of the mesh on this machine, or on all machines."""
    settings = settings_of(args)
    is_here = not (args.words or args.all)
    if is_here and host_here(settings) is None and living_records(settings, state=True):
        # Kernels, and the shared state, without a host can only be ended by one: it adopts them first.
        note("the host is gone, what it started lives: starting a host to end that")
        _start_in_its_mesh(settings)
    here = host_here(settings) if is_here else None
    if here is not None:
        names = _end_host(here, settings, force=args.force)
        return _say_stopped(names, [settings.host_name], args.json)
    try:
        mesh = open_mesh(settings)
    except NameServerNotFoundError:
        if args.words or settings.ns:
            raise
        complain(f"nothing to stop: mesh {settings.mesh!r} is not running on this machine")
        return ExitCode.NO_MESH
    with mesh:
        if args.words:
            return _say_stopped(mesh.stop(args.words, force=args.force), [], args.json)
        hosts = [host for host in mesh.hosts() if args.all or host.name == settings.host_name]
        if not hosts:
            complain(f"no host runs on this machine ({settings.host_name}); those of other machines: stop --all")
            return ExitCode.NO_MESH
        names, ended, codes = [], [], [ExitCode.OK]
        for host in hosts:
            try:
                names += _end_host(host, settings, force=args.force)
                ended.append(host.name)
            except PyrokernelError as error:
                if len(hosts) == 1:
                    raise
                complain(f"host {host.name} goes on, if it is there: {error}")
                codes.append(ExitCode.FAILED if isinstance(error, KernelUnreachableError) else code_of(error))
    if ended or args.json:
        _say_stopped(names, ended, args.json, is_all=len(ended) == len(hosts))
    return worst(codes)


def _start_in_its_mesh(settings: Settings) -> None:
    """Start a host where the one before it was, so that names go with their kernels; by itself where that is away."""
    try:
        start_detached(meant(settings, ""), [])
    except NameServerError:
        start_detached(dataclasses.replace(settings, ns=""), [])


def _end_host(host: Link, settings: Settings, *, force: bool) -> list[str]:
    """End a host and its kernels; return the names of those."""
    pid = ask(host, Request(HOST_OBJECT, "describe"), settings.timeout)["pid"]
    infos = ask(host, Request(HOST_OBJECT, "list_kernels"), settings.timeout)
    request = Request(HOST_OBJECT, "shutdown", ["pyrokernel stop", force])
    ask(host, request, max(settings.timeout, STOP_SECONDS + START_SECONDS))
    if host.name == settings.host_name:
        _await_end(pid)
    from pyrokernel.front import tunnel  # with what runs programs, which nothing else here needs

    tunnel.close(settings, host.name)
    return [info["name"] for info in infos]


def _say_stopped(names: Sequence[str], hosts: Sequence[str], as_json: bool, *, is_all: bool = True) -> int:
    if as_json:
        say_json({"kernels": list(names), "hosts": list(hosts)})
        return ExitCode.OK
    if names or not hosts:
        say(f"stopped {plural(len(names), 'kernel')}: {label(names)}")
    if hosts:
        rest = "; nothing of it runs on" if is_all else ""
        say(f"stopped the {'host' if len(hosts) == 1 else 'hosts'} on {', '.join(hosts)}{rest}")
    return ExitCode.OK


def _await_end(pid: int) -> None:
    """Wait until a host process has gone, so that a `serve` right after finds a clean house."""
    try:
        watch = ProcessWatch(pid)
    except ProcessLookupError:
        return
    ended = select.select([watch], [], [], STOP_SECONDS)[0]
    watch.close()
    if not ended:
        complain(f"the host (process {pid}) takes its time to end; see `pyrokernel doctor`")
