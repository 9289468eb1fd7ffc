"""The parts of the host, put together: from the first kernel to the last file removed. Runs in the host process.

The order at the start is for speed: the template and the kernels are under way before
this process imports Pyro5, so that both sides load at the same time.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from pyrokernel.again import CAN_FORK
from pyrokernel.audit import AuditFile, refusals_to
from pyrokernel.errors import PyrokernelError, error_to_wire
from pyrokernel.host import processes
from pyrokernel.host.deaths import DeathLog
from pyrokernel.host.launcher import Launcher
from pyrokernel.host.lifecycle import Situation
from pyrokernel.host.places import Places
from pyrokernel.host.recorder import Recorder
from pyrokernel.host.spawn import TemplateProcess
from pyrokernel.host.supervisor import Supervisor
from pyrokernel.loop import Loop, when_done
from pyrokernel.messages import HOST_OBJECT, HostConfig, KernelInfo, new_instance_id
from pyrokernel.settings import Settings, command_line, gateway_environment

if TYPE_CHECKING:
    from pyrokernel.host.names import Announcer
    from pyrokernel.wire.daemon import Daemon
    from pyrokernel.wire.nameserver import EmbeddedNameServer

GOODBYE_SECONDS = 0.05
"""Time for the answer to a shutdown to leave the process."""
SETTLE_SECONDS = 5.0
"""How long a host that leaves waits for kernels on their way, so that its successor knows them."""


class Host:
    """One host from start to end.

    Args:
        config, settings, places: What it was told, and what follows from that.
        report: Called once, with what the host has to say about its start.
        template: One that is under way already.
    """

    def __init__(
        self,
        config: HostConfig,
        settings: Settings,
        places: Places,
        report: Callable[[dict[str, Any]], None],
        template: TemplateProcess | None,
    ) -> None:
        self._config = config
        self._settings = settings
        self._places = places
        self._report = report
        self._instance = new_instance_id()
        self._loop = Loop()
        self._launcher = Launcher(self._loop, os.environ, settings)
        self._launcher.warm(template)
        record = AuditFile(places.state, 0 if config.private else settings.audit_bytes)
        self._recorder = Recorder(record, places.state / "journals")
        self._deaths = DeathLog(places.deaths, self._recorder.on_death)
        # By it whatever runs here reaches other machines, this process too: the key is the gateway's alone.
        self._way_out = str(places.gateway) if settings.listen else ""
        # Whoever has the name server is reached by all the others, and is there before them.
        self._state_host = settings.state_host or ("" if settings.ns else settings.host_name)
        situation = Situation(
            mesh=settings.mesh,
            host=settings.host_name,
            ns=settings.ns_address,
            address=settings.address,
            gateway=self._way_out,
            lifeline_fd=config.lifeline_fd,
            environ=os.environ,
            extra_environ=dataclasses.replace(settings, gateway=self._way_out).to_env(),
            portable=settings.portable,
        )
        self._supervisor = Supervisor(self._loop, self._launcher, places, self._deaths, situation)
        self._names: Announcer | None = None
        self._name_server: EmbeddedNameServer | None = None
        self._daemon: Daemon | None = None
        self._kernels_stay = False
        self._exit_code = 0

    def run(self) -> int:
        """Live."""
        self._mind_signals()
        if CAN_FORK:
            processes.become_subreaper()
        processes.raise_descriptor_limit()
        if self._config.lifeline_fd >= 0:
            self._loop.watch(self._config.lifeline_fd, self._on_lifeline)
        try:
            self._begin()
            self._loop.run()
        finally:
            self._end()
        return self._exit_code

    def _begin(self) -> None:
        specs = self._config.load_specs()
        adopting = self._supervisor.adopt(except_names=[spec.name for spec in specs])
        adopted = set(self._supervisor.living())
        try:
            gateway = self._open_to_others()
            started = self._supervisor.start([spec for spec in specs if spec.name not in adopted])
            self._open_doors()
        except (PyrokernelError, OSError) as error:
            self._give_up(error)
            return
        # The name server may be on another machine, to which the gateway leads.
        when_done(gateway, lambda: self._loop.call(lambda: self._announce(gateway, adopting, started)))

    def _announce(
        self, gateway: list[Future[KernelInfo]], adopting: list[Future[KernelInfo]], started: list[Future[KernelInfo]]
    ) -> None:
        error = next(filter(None, (future.exception() for future in gateway)), None)
        if error is not None:
            self._give_up(error)
            return
        assert self._daemon is not None
        self._names = self._make_announcer()
        self._names.start()
        announced = self._names.announce_host(self._daemon.uri_for(HOST_OBJECT), self._instance)
        self._supervisor.attach(self._names)
        when_done(
            [announced, *adopting, *started], lambda: self._loop.call(lambda: self._on_settled(announced, started))
        )

    def _open_to_others(self) -> list[Future[KernelInfo]]:
        """Start the gateway, if other machines are to come in."""
        if self._settings.listen:
            return [self._supervisor.start_gateway(gateway_environment(self._settings))]
        self._supervisor.end_gateway()  # an earlier host was told to let others in, this one is not
        return []

    def _make_announcer(self) -> Announcer:
        from pyrokernel.host.names import Announcer
        from pyrokernel.wire.naming import Directory
        from pyrokernel.wire.remote import Credentials

        settings = self._settings
        return Announcer(
            Directory(settings.ns_address, credentials=Credentials.of_process(self._way_out)),
            settings.host_name,
            outside=self._name_server is None,
            address=settings.address,
        )

    def _open_doors(self) -> None:
        """Start to answer."""
        # Imported here and not above: the template loads the same modules at this moment, on another processor.
        from pyrokernel.certs.bundles import take_revoked
        from pyrokernel.host.service import HostService
        from pyrokernel.wire.daemon import Daemon
        from pyrokernel.wire.limits import Quota
        from pyrokernel.wire.nameserver import EmbeddedNameServer

        settings = self._settings
        if not settings.ns:
            self._name_server = EmbeddedNameServer(
                self._places.name_server_socket,
                state_host=self._state_host,
                portable=settings.portable,
                quota=Quota.of(settings),
                on_refused=refusals_to(self._recorder.record, {"object": "name server"}),
                on_revoked=functools.partial(take_revoked, settings.host_certs_dir),
            )
            self._name_server.start()
        identity = {"host": settings.host_name, "instance": self._instance}
        self._recorder.start()
        self._daemon = Daemon(
            settings.host_socket,
            identity=identity,
            portable=settings.portable,
            quota=Quota.of(settings),
            on_refused=refusals_to(self._recorder.record, {"object": "host"}),
        )
        service = HostService(
            self._loop,
            self._supervisor,
            self._deaths,
            self._places,
            {**identity, "mesh": settings.mesh, "ns": settings.ns_address, "private": self._config.private,
             "listen": settings.listen, "address": settings.address,
             "state_host": self._state_host,
             "settings": {"no_plugin": settings.no_plugin, "plugins_dir": settings.plugins_dir,
                          "python": sys.executable},
             "started": time.time()},
            shutdown=self._say_goodbye,
            own={"gateway": gateway_environment(settings)},
            take_revoked=functools.partial(take_revoked, settings.host_certs_dir),
            recorder=self._recorder,
        )  # fmt: skip
        self._daemon.register(service, HOST_OBJECT)
        self._daemon.start()

    def _on_settled(self, announced: Future[None], started: list[Future[KernelInfo]]) -> None:
        """Report, now that the name of the host and all kernels have come out well or badly."""
        error = announced.exception()
        failures = [future.exception() for future in started if future.exception() is not None]
        # A host none of whose kernels came up is of no use; a partner of one who waits for four is none either.
        if error is None and failures and (self._config.private or not self._supervisor.living()):
            error = failures[0]
        if error is not None:
            self._give_up(error)
            return
        self._places.note_joined(self._settings)
        self._report(
            {
                "ok": True,
                "ns": self._settings.ns_address,
                "host": self._settings.host_name,
                "pid": os.getpid(),
                "kernels": [info.to_wire() for info in self._supervisor.kernels()],
                "failed": [error_to_wire(failure) for failure in failures if failure is not None],
            }
        )

    def _give_up(self, error: BaseException) -> None:
        """End what was started, leave what was adopted, and say why the start failed."""
        self._exit_code = 1
        self._kernels_stay = True
        self._report({"ok": False, **error_to_wire(error)})
        started = [info.name for info in self._supervisor.kernels() if not self._supervisor.is_adopted(info.name)]
        self._supervisor.stop(started, force=True, timeout=0.0).add_done_callback(lambda _: self._loop.stop())

    def _mind_signals(self) -> None:
        loop, config = self._loop, self._config
        if hasattr(signal, "SIGCHLD"):
            loop.on_signal(signal.SIGCHLD, self._supervisor.reap)
        # A handler that does nothing, and not SIG_IGN, which kernels would inherit.
        nothing: Callable[[], None] = lambda: None  # noqa: E731
        leave = self._stop_everything if config.private else self._leave
        loop.on_signal(signal.SIGTERM, leave)
        loop.on_signal(signal.SIGINT, nothing if config.private else leave)
        if hasattr(signal, "SIGHUP"):
            loop.on_signal(signal.SIGHUP, nothing if config.private or config.detached else leave)

    def _leave(self) -> None:
        """End the host and let its kernels live; the next one adopts them."""
        if self._kernels_stay:  # asked a second time, and the user means it
            self._loop.stop()
            return
        self._kernels_stay = True
        if not self._config.detached:
            count = len(self._supervisor.living())
            what = "1 kernel keeps" if count == 1 else f"{count} kernels keep"
            print(
                f"\n{what} running without a host: `{command_line(self._settings, 'serve')}` watches over them again, "
                f"`{command_line(self._settings, 'stop')}` ends them",
                flush=True,
            )
        when_done(self._supervisor.settling(), self._loop.stop)
        self._loop.after(SETTLE_SECONDS, self._loop.stop)

    def _stop_everything(self) -> None:
        self._supervisor.stop_all().add_done_callback(lambda _: self._loop.stop())

    def _on_lifeline(self) -> None:
        """End everything: the client that owns this mesh is gone, or has closed its end."""
        if os.read(self._config.lifeline_fd, 1) == b"":
            self._launcher.close()
            self._supervisor.kill_all()
            self._loop.stop()

    def _say_goodbye(self) -> None:
        self._loop.call(lambda: self._loop.after(GOODBYE_SECONDS, self._loop.stop))

    def _end(self) -> None:
        """Let callers go, and leave nothing behind but living kernels and what they need."""
        self._launcher.close()
        self._deaths.close()
        self._recorder.close()
        if self._names is not None:
            if not self._config.private:
                self._names.withdraw_host(self._instance)
            self._names.close()
        if not (self._kernels_stay and self._supervisor.has_living()):
            self._supervisor.end_gateway()
        if self._daemon is not None:
            self._daemon.close()
        if self._name_server is not None:
            self._name_server.close()
        self._loop.close()
        if not (self._kernels_stay and self._supervisor.has_living()):
            self._places.remove(private=self._config.private)
