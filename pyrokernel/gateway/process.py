"""A gateway process from birth to end. Runs in the gateway process."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any, NoReturn

from pyrokernel import settings as settings_module
from pyrokernel.again import show_as
from pyrokernel.birth import end_with_client, report, write_to
from pyrokernel.errors import PyrokernelError, error_to_wire
from pyrokernel.gateway.gateway import Gateway
from pyrokernel.messages import KernelBirth


def main(birth: KernelBirth, **_: Any) -> NoReturn:
    """Be the gateway until the end. Never returns: the process exits.

    Args:
        birth: Who to be; sockets are where its own would be, and the log is in `journal_dir`.
    """
    try:
        show_as("pk-gateway")
        os.environ.update(birth.spec["env"])
        settings = settings_module.load()
        write_to(Path(birth.journal_dir) / "gateway.log")
        runtime = Path(birth.socket).parent
        gateway = Gateway(settings, runtime, Path(settings.gateway))
    except BaseException as error:  # all of it is reported to the host, which tells the user
        report(birth, {"ok": False, **error_to_wire(error)})
        if not isinstance(error, (PyrokernelError, OSError)):
            raise
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C at the host's terminal is not meant for those who are in
    gateway.loop.on_signal(signal.SIGTERM, gateway.loop.stop)
    end_with_client(birth)
    report(birth, {"ok": True, "pid": os.getpid(), "uri": f"PYRO:gateway@{settings.listen}"})
    gateway.run()
    os._exit(0)
