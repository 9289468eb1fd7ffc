"""`python -m pyrokernel.host`: a host whose configuration is JSON on standard input. Runs in the host process."""

from __future__ import annotations

import json
import os
import sys

from pyrokernel.host.spawn import CAN_FORK, TemplateProcess, about_plugins


def main() -> int:
    """Start the template, and only then load the host."""
    text = sys.stdin.read()
    given = json.loads(text)
    chosen = given.get("settings", {})
    environ = {**os.environ, **about_plugins(chosen)}
    template = TemplateProcess((), environ) if CAN_FORK and not chosen.get("portable") else None

    import logging

    from pyrokernel.host.process import run
    from pyrokernel.messages import HostConfig

    # A log file is for reading later what happened; a terminal is for what needs somebody now.
    level = logging.INFO if given.get("detached") else logging.WARNING
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s", level=level)
    return run(HostConfig.from_wire(given), template=template)


if __name__ == "__main__":
    sys.exit(main())
