"""`interrupt`, `restart` and `stop`. Runs in the caller's process."""

from __future__ import annotations

import argparse
import select
from collections.abc import Sequence

from pyrokernel.errors import AccessRefusedError, NameServerNotFoundError
from pyrokernel.front.exits import ExitCode, worst
from pyrokernel.front.reach import choose, living_records, open_mesh, settings_of, survey_hosts, tell_hosts
from pyrokernel.front.serve import start_detached
from pyrokernel.front.terminal import complain, note, say, say_json
from pyrokernel.host.processes import ProcessWatch
from pyrokernel.messages import KernelStatus, Receipt
from pyrokernel.texts import label, plural

_STOP_SECONDS = 5.0
_START_SECONDS = 30.0
_OUTCOME_CODES = {"unanswered": ExitCode.TIMEOUT, "refused": ExitCode.REFUSED}


def interrupt(args: argparse.Namespace) -> int:
    """Interrupt what runs, and say what became of it."""
    with open_mesh(settings_of(args)) as mesh:
        receipts = mesh.select(args.words).interrupt(args.cell, escalate=args.kill)
    if args.json:
        say_json([receipt.to_wire() for receipt in receipts.values()])
    else:
        for receipt in receipts.values():
            say(describe_receipt(receipt))
    return worst(_OUTCOME_CODES.get(receipt.outcome, ExitCode.OK) for receipt in receipts.values())


def describe_receipt(receipt: Receipt) -> str:
    """Say what became of an interrupt, and what to try when it was of no use."""
    text = f"{receipt.kernel}: {receipt.outcome}"
    if receipt.detail:
        text += f" ({receipt.detail})"
    if receipt.outcome == "unanswered":
        text += f"; to end it at the cost of its variables: pyrokernel interrupt {receipt.kernel} --kill"
    return text


def restart(args: argparse.Namespace) -> int:
    """Give kernels a fresh instance; the dead come back too."""
    with open_mesh(settings_of(args)) as mesh:
        infos, hosts, _ = survey_hosts(mesh)
        chosen = choose(infos, args.words)
        protected = [info.name for info in chosen if info.protected and info.status != KernelStatus.DEAD]
        if protected and not args.force:
            raise AccessRefusedError(
                f"protected: {', '.join(protected)}; to lose their variables all the same, add --force"
            )
        started = tell_hosts(mesh, chosen, hosts, "restart_kernels", args.force, timeout=_START_SECONDS + _STOP_SECONDS)
    if args.json:
        say_json(started)
    else:
        for info in started:
            say(f"{info['name']}: restarted, instance {info['instance']}")
    return ExitCode.OK


def stop(args: argparse.Namespace) -> int:
    """End some kernels, or everything of the mesh on this machine, or on all machines."""
    settings = settings_of(args)
    try:
        mesh = open_mesh(settings)
    except NameServerNotFoundError:
        if args.words or settings.ns:
            raise
        if not living_records(settings):
            complain(f"nothing to stop: mesh {settings.mesh!r} is not running on this machine")
            return ExitCode.NO_MESH
        # Kernels without a host can only be ended by one: it adopts them first.
        note("the host is gone, its kernels live: starting a host to end them")
        start_detached(settings, [])
        mesh = open_mesh(settings)
    with mesh:
        infos, hosts, _ = survey_hosts(mesh)
        if args.words:
            chosen = choose(infos, args.words)
            tell_hosts(mesh, chosen, hosts, "stop_kernels", _STOP_SECONDS, timeout=_STOP_SECONDS + _START_SECONDS)
            return _say_stopped([info.name for info in chosen], [], args.json)
        ended = [host for host in hosts if args.all or host == settings.host_name]
        if not ended:
            complain(f"no host runs on this machine ({settings.host_name}); those of other machines: stop --all")
            return ExitCode.NO_MESH
        for name in ended:
            pid = mesh.ask_host(hosts[name], "describe")["pid"]
            mesh.ask_host(hosts[name], "shutdown", "pyrokernel stop", timeout=_STOP_SECONDS + _START_SECONDS)
            if name == settings.host_name:
                _await_end(pid)
    return _say_stopped([info.name for info in infos if info.host in ended], ended, args.json)


def _say_stopped(names: Sequence[str], hosts: Sequence[str], as_json: bool) -> int:
    if as_json:
        say_json({"kernels": list(names), "hosts": list(hosts)})
        return ExitCode.OK
    if names or not hosts:
        say(f"stopped {plural(len(names), 'kernel')}: {label(names)}")
    if hosts:
        say(f"stopped the {'host' if len(hosts) == 1 else 'hosts'} on {', '.join(hosts)}; nothing of it runs on")
    return ExitCode.OK


def _await_end(pid: int) -> None:
    """Wait until a host process has gone, so that a `serve` right after finds a clean house."""
    try:
        watch = ProcessWatch(pid)
    except ProcessLookupError:
        return
    ended = select.select([watch], [], [], _STOP_SECONDS)[0]
    watch.close()
    if not ended:
        complain(f"the host (process {pid}) takes its time to end; see `pyrokernel doctor`")
