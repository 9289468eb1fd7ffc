"""A state process from birth to end. Runs in the state process."""

from __future__ import annotations

import logging
import os
import signal
import threading
from pathlib import Path
from typing import Any, NoReturn

from pyrokernel import settings as settings_module
from pyrokernel.again import show_as
from pyrokernel.audit import AuditFile, refusals_to
from pyrokernel.birth import end_with_client, report, write_to
from pyrokernel.errors import PyrokernelError, error_to_wire
from pyrokernel.messages import STATE_OBJECT, KernelBirth
from pyrokernel.roles import Role
from pyrokernel.settings import Settings, private_directory
from pyrokernel.state.backups import Backups
from pyrokernel.state.claim import claim
from pyrokernel.state.desk import Desk
from pyrokernel.state.engine import Engine, Limits
from pyrokernel.state.files import Files
from pyrokernel.state.opening import open_store
from pyrokernel.state.service import StateService
from pyrokernel.state.stock import StockState
from pyrokernel.wire.connection import Connection
from pyrokernel.wire.daemon import Daemon
from pyrokernel.wire.limits import Quota

log = logging.getLogger(__name__)

_CLAIM_SECONDS = 5.0
"""How long a service before this one may take to be gone, or `restore` to be through."""


def main(birth: KernelBirth, **_: Any) -> NoReturn:
    """Be the shared state until the end. Never returns: the process exits.

    Args:
        birth: Who to be; `journal_dir` is the directory to keep everything in.
    """
    try:
        show_as("pk-shared")
        os.environ.update(birth.spec["env"])
        process = StateProcess(birth, settings_module.load())
    except BaseException as error:  # all of it is reported to the host, which tells the user
        report(birth, {"ok": False, **error_to_wire(error)})
        if not isinstance(error, (PyrokernelError, OSError)):
            raise
        os._exit(1)
    report(birth, {"ok": True, "pid": os.getpid(), "uri": process.daemon.uri_for(STATE_OBJECT)})
    process.run()


class StateProcess:
    """The rooms of a state process, put together."""

    def __init__(self, birth: KernelBirth, settings: Settings) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C at the host's terminal is not meant for the data
        directory = private_directory(Path(birth.journal_dir))
        write_to(directory / "state.log")
        self._birth = birth
        self._claim = claim(directory, _CLAIM_SECONDS)
        power = settings.durability == "power"
        self._backups = Backups(directory)
        self._store = open_store(directory, settings, self._backups)
        files = Files(directory, power=power)
        limits = Limits(settings.state_versions, settings.state_changes, settings.state_file_bytes)
        engine = Engine(self._store, files, limits)
        files.clean(engine.files_in_use())
        self._backups.attach(self._store, files)
        identity = {
            "state": birth.mesh,
            "instance": birth.instance,
            "host": birth.host,
            "directory": str(directory),
            "kind": settings.state_store,
            "durability": settings.durability,
        }
        service = StateService(engine, identity, self._backups.directory)
        refused = refusals_to(AuditFile.beside(settings), {"object": "shared"})
        self.daemon = Daemon(
            Path(birth.socket),
            identity={"instance": birth.instance},
            portable=settings.portable,
            on_work=lambda connection: self.desk.adopt(connection),
            work_role=Role.OBSERVER,
            quota=Quota.of(settings),
            on_refused=refused,
        )
        self.desk = Desk(engine, service, self._drop, self.daemon.admission.limits, refused)
        self._backups.settle = lambda: self.desk.submit(self._store.idle).result()
        self.daemon.register(StockState(self.desk, service, self._backups), STATE_OBJECT)
        signal.signal(signal.SIGTERM, lambda *_: self.desk.stop())
        self.daemon.start()
        end_with_client(birth)
        if birth.lifeline_fd < 0 and settings.state_backup and not self._store.backed_up_by:
            keep = threading.Thread(target=self._backups.keep_current, args=(settings.state_backup,), daemon=True)
            keep.name = "pyrokernel-backup"
            keep.start()

    def run(self) -> NoReturn:
        """Serve, then close the store in order."""
        try:
            self.desk.run()
        finally:
            self._store.close()
        os._exit(0)

    def _drop(self, connection: Connection) -> None:
        self.daemon.drop(connection)
