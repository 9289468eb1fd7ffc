"""`serve`: start a host and its kernels, in the foreground or detached, or join the host that runs.

Runs in the caller's process, which in the foreground becomes the host process.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import socket
import sys
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from pyrokernel.client.links import Link
from pyrokernel.client.mesh import Mesh
from pyrokernel.client.roster import split_words
from pyrokernel.client.starting import StartingHost
from pyrokernel.errors import HostError, NameServerNotFoundError, SettingsError, error_from_wire
from pyrokernel.front.exits import ExitCode, worst
from pyrokernel.front.inits import report_inits
from pyrokernel.front.joining import meant
from pyrokernel.front.reach import described_here, living_records, open_mesh, settings_of
from pyrokernel.front.terminal import complain, note, say
from pyrokernel.host.meshfile import load_mesh_file
from pyrokernel.host.policy import check_spec, free_names
from pyrokernel.messages import START_SECONDS, HostConfig, KernelSpec
from pyrokernel.settings import (
    ENV_PREFIX,
    Settings,
    command_line,
    gateway_environment,
    parse_size,
    parse_span,
    place_of,
)
from pyrokernel.texts import label, plural
from pyrokernel.wire.trust import is_loopback

_LOOK_AGAIN_SECONDS = 0.05


def main(args: argparse.Namespace) -> int:
    """Start, or join; in the foreground, return when the host ends."""
    mesh_file, declared = load_mesh_file(args.file) if args.file else ({}, [])
    settings = settings_of(args, mesh_file)
    if args.ssh:
        from pyrokernel.front import over_ssh  # with what it needs of the authority

        return over_ssh.main(args, settings)
    settings = meant(settings, args.join)
    stem = stem_of(settings)
    specs = [*declared, *specs_of(args, taken=[spec.name for spec in declared], stem=stem)]
    if not specs and args.number is None and not living_records(settings):
        specs = [spec_of(args, f"{stem}0")]
    config = HostConfig(settings=settings.dump(), specs=tuple(spec.to_wire() for spec in specs), detached=args.detach)
    if args.detach:
        report = _start(config)
        code: int = worst([_announce(report, settings), _report_inits(report, settings, specs)])
    else:
        code, report = _be_host(config, settings, specs)
    if not report.get("running"):
        return code
    return _join(args, _as_running(settings), declared)


def stem_of(settings: Settings) -> str:
    """Return how the names of numbered kernels begin: as their machine where there are others, so that none clash."""
    return f"{settings.host_name}-" if settings.ns and settings.listen else "k"


def specs_of(args: argparse.Namespace, taken: Collection[str], stem: str = "k") -> list[KernelSpec]:
    """Return the kernels that the command line asks for by --name and -n.

    Args:
        args: As the parser made them.
        taken: Names that numbered kernels must not get.
        stem: How the names of those begin.
    """
    names = [*(args.name or ())]
    names += free_names(args.number or 0, [*taken, *names], stem)
    return [spec_of(args, name) for name in names]


def spec_of(args: argparse.Namespace, name: str) -> KernelSpec:
    """Return one kernel of the command line.

    Raises:
        SettingsError: A value cannot be used.
    """
    return check_spec(
        KernelSpec(
            name=name,
            tags=tuple(split_words(args.tag)),
            init=_existing(args.init, "--init"),
            env=_environment(args.env or ()),
            cwd=_existing(args.cwd, "--cwd"),
            path=tuple(_existing(folder, "--path") for folder in args.path or ()),
            preload=tuple(split_words(args.preload)),
            protected=args.protected,
            restart=args.restart,
            threads=args.threads,
            memory_bytes=_number(parse_size, args.memory, "--memory"),
            descriptors=args.descriptors,
            journal_bytes=_number(parse_size, args.journal, "--journal"),
            idle_stop=_number(parse_span, args.idle_stop, "--idle-stop"),
        )
    )


def start_detached(settings: Settings, specs: Sequence[KernelSpec]) -> dict[str, Any]:
    """Start a detached host for another subcommand and return its report.

    Raises:
        HostError: It could not start, or there is one already.
    """
    declared = tuple(spec.to_wire() for spec in specs)
    report = _start(HostConfig(settings=settings.dump(), specs=declared, detached=True))
    if not report["ok"]:
        raise error_from_wire(report)
    return report


def _start(config: HostConfig) -> dict[str, Any]:
    """Start a detached host and return its report."""
    starting = StartingHost(detached=True, portable=bool(config.settings.get("portable")))
    starting.tell(config)
    return starting.report(2 * START_SECONDS)


def _be_host(config: HostConfig, settings: Settings, specs: Sequence[KernelSpec]) -> tuple[int, dict[str, Any]]:
    """Be the host until the end; the report says whether there was one already."""
    from pyrokernel.host.process import run

    heard: dict[str, Any] = {}

    def on_ready(report: dict[str, Any]) -> None:
        heard.update(report)
        if not report["ok"]:
            return  # the host is about to end; raised here, the error would only be logged
        _announce(report, settings, foreground=True)
        # Beside the host, whose work must not wait for init files.
        arguments = (report, settings, specs)
        threading.Thread(target=_report_inits, args=arguments, name="pyrokernel-inits", daemon=True).start()

    code = run(config, on_ready=on_ready)
    return code if heard.get("ok") else _announce(heard, settings), heard


def _report_inits(report: Mapping[str, Any], settings: Settings, specs: Sequence[KernelSpec]) -> ExitCode:
    """Say what became of the init files of the kernels of a report."""
    named = {spec.name for spec in specs if spec.init}
    infos = report.get("kernels", ())
    links = [
        Link(info["name"], info["uri"], info["instance"]) for info in infos if info["name"] in named and info["uri"]
    ]
    return report_inits(links, settings, _protected(specs))


def _protected(specs: Sequence[KernelSpec]) -> set[str]:
    return {spec.name for spec in specs if spec.protected}


def _announce(report: Mapping[str, Any], settings: Settings, *, foreground: bool = False) -> ExitCode:
    """Say what runs, how to reach it and how to stop it; return the exit code."""
    if report.get("running"):
        return ExitCode.OK
    if not report["ok"]:
        raise explained(error_from_wire(report))
    names = [info["name"] for info in report["kernels"] if info["status"] != "dead"]
    _describe(f"mesh {settings.mesh!r} on {report['host']}", names, settings, foreground=foreground)
    for failure in report.get("failed", ()):
        complain(str(explained(error_from_wire(failure))))
    return ExitCode.FAILED if report.get("failed") else ExitCode.OK


def _describe(where: str, names: Sequence[str], settings: Settings, *, foreground: bool) -> None:
    say(f"{where}: {plural(len(names), 'kernel')}" + (f" ({label(names)})" if names else ""))
    for purpose, words in (("reach", "shell"), ("watch", "ps"), ("stop", "stop")):
        say(f"  {purpose + ' them:':<12} {command_line(settings, words)}")
    if settings.listen:
        # A host's own name server is reached by its gateway.
        at = settings.address if settings.ns_address.startswith("./u:") else settings.ns_address
        name = place_of(settings.address, "listen")[0]
        loopback = name if settings.advertise or settings.listens_everywhere else _address_of(name)
        if is_loopback(loopback):
            say(f"  programs of this machine reach it at {settings.address} by certificate; other machines do not")
            if loopback != name:
                say(f"  ({name} is {loopback} here, as Debian's /etc/hosts says; --listen with an address is for all)")
        else:
            say(f"  other machines reach it at {settings.address}; they join it by: pyrokernel serve --join {at}")
        if settings.listens_everywhere and not settings.advertise:
            say("  (it listens at all its addresses, and is reached by its name; --advertise HOST:PORT says otherwise)")
    if foreground:
        say("  Ctrl-C ends this host and leaves the kernels running.")


def _address_of(name: str) -> str:
    """Return the address at which who listens at a name does so."""
    try:
        return name if ":" in name else socket.gethostbyname(name)
    except OSError:
        return name


def explained(error: Exception) -> Exception:
    """Add to an error of a start what the user can do about it, where only the command line knows."""
    text = str(error)
    found = re.search(r"preloading (.+?) failed: \w*(?:ModuleNotFound|Import)Error", text)
    if not isinstance(error, HostError) or found is None:
        return error
    missing = re.search(r"No module named '([\w.]+)'", text)
    name = missing[1] if missing else found[1]
    return HostError(
        f"{text}; correct --preload (preload in a mesh file), or see to it that {sys.executable} can import {name}"
    )


def _open_when_ready(settings: Settings) -> Mesh:
    """Connect to the mesh of a host that holds the lock, but may not have opened its doors yet."""
    deadline = time.monotonic() + settings.timeout
    while True:
        try:
            mesh = open_mesh(settings)
        except NameServerNotFoundError:
            if settings.ns or time.monotonic() > deadline:  # one by itself does not open with the host
                raise
        else:
            # Its name server answers before it has registered itself there.
            names = {host.name for host in mesh.hosts()}
            if settings.host_name in names or (names and not settings.ns):
                return mesh
            mesh.close()
            if time.monotonic() > deadline:
                raise HostError(
                    f"a host of mesh {settings.mesh!r} runs on this machine already, and the name server at "
                    f"{settings.ns_address} does not know it: it serves another mesh. To have it join this one, end "
                    f"it first (pyrokernel --mesh {settings.mesh} stop), or use another name (--mesh NAME)"
                )
        time.sleep(_LOOK_AGAIN_SECONDS)


def _as_running(settings: Settings) -> Settings:
    """Return the settings with the address by which a host that runs already is reached; refuse one not as meant.

    That it lets others in by another policy, say, is noted only: ending it is the user's to decide.

    Raises:
        SettingsError: It is in another mesh, or does not listen where it was to, or others reach it by another address.
    """
    about = described_here(settings)
    here, ns, listen = f"the host of mesh {settings.mesh!r} that runs here", about.get("ns"), about.get("listen")
    if about and ns != settings.ns_address:
        raise SettingsError(
            f"{here} is in the mesh of the name server {ns}, and not {settings.ns_address}. For more kernels there, "
            "leave that out; else use another name (--mesh NAME), or end it first, with its kernels and what they "
            f"hold: pyrokernel --mesh {settings.mesh} stop"
        )
    if about and settings.listen and listen != settings.listen:
        raise SettingsError(
            f"{here} lets other machines in at {listen or 'no address'}, and not {settings.listen}; to change that, "
            f"end it alone (kill {about['pid']}: kernels go on), and run this again"
        )
    address = str(about.get("address", settings.address))
    if about and settings.listen and settings.advertise and address != settings.advertise:
        raise SettingsError(
            f"others reach {here} at {address}, and not {settings.advertise}; to change that, end it alone "
            f"(kill {about['pid']}: kernels go on), and run this again"
        )
    ours, theirs = gateway_environment(settings), about.get("gateway")
    if settings.listen and theirs is not None and theirs != ours:
        others = [name.removeprefix(ENV_PREFIX).lower() for name in ours if theirs.get(name) != ours[name]]
        note(
            f"the host that runs here lets other machines in by other settings ({', '.join(others)}), which hold on; "
            f"for those of now, end it alone (kill {about['pid']}: kernels go on), and run this again"
        )
    return settings if address == settings.address else dataclasses.replace(settings, advertise=address)


def _join(args: argparse.Namespace, settings: Settings, declared: Sequence[KernelSpec]) -> int:
    """Start what is asked for through the host that runs already.

    What a mesh file or -n asks for is meant to exist, so a name of it that lives is left alone.
    """
    with _open_when_ready(settings) as mesh:
        infos = mesh.roster().infos
        living = [info.name for info in infos if info.status != "dead"]
        # Numbered kernels are this machine's: a name that one of another machine has is not meant.
        here = {info.name for info in infos if info.host == settings.host_name}
        elsewhere = {*living, *mesh.names} - here
        taken = [*elsewhere, *(spec.name for spec in declared)]
        asked = [*declared, *specs_of(args, taken=taken, stem=stem_of(settings))]
        kept = [spec.name for spec in asked if spec.name in living and spec.name not in (args.name or ())]
        specs = [spec for spec in asked if spec.name not in kept]
        note(f"a host runs already for mesh {settings.mesh!r}: joined it")
        if kept:
            note(f"already running, left as they are: {label(kept)}")
        try:
            group = list(mesh.start(specs)) if specs else []
        except HostError as error:
            raise explained(error) from error
        started = [kernel.name for kernel in group]
        say(f"started: {label(started)}" if started else "started nothing; for more: a higher -n, or --name")
        names = [*(name for name in living if name in here), *started]
        _describe(f"mesh {settings.mesh!r} on {settings.host_name}", names, settings, foreground=False)
        with_init = {spec.name for spec in specs if spec.init}
        links = [kernel.link for kernel in group if kernel.name in with_init]
        return report_inits(links, settings, _protected(specs))


def _environment(pairs: Sequence[str]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise SettingsError(f"--env {pair!r}: write KEY=VALUE")
        found[key] = value
    return found


def _existing(path: str, option: str) -> str:
    """Return a path as the host, which may work elsewhere, can use it."""
    if not path:
        return ""
    found = Path(path).expanduser().absolute()
    if not found.exists():
        raise SettingsError(f"{option} {path}: there is no such file or directory")
    return str(found)


def _number(parse: Any, text: str, option: str) -> Any:
    try:
        return parse(text) if text else 0
    except ValueError as error:
        raise SettingsError(f"{option}: {error}") from error
