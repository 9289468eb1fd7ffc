"""`python -m pyrokernel.host`: a host whose configuration is JSON on standard input. Runs in the host process."""

from __future__ import annotations

import logging
import sys

from pyrokernel.host.config import HostConfig
from pyrokernel.host.process import run

if __name__ == "__main__":
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s", level=logging.WARNING)
    sys.exit(run(HostConfig.from_json(sys.stdin.read())))
