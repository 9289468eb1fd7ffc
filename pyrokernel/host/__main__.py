"""`python -m pyrokernel.host`: a host whose configuration is JSON on standard input. Runs in the host process.

It is started before anybody knows what it is to do. First it imports what host and kernels have in common,
once for both; then it forks the template, and the two go on side by side, each with rooms of its own.
"""

from __future__ import annotations

import gc
import json
import os
import sys

from pyrokernel.again import CAN_FORK, keep_open, taken


def main() -> int:
    """Fork the template, and only then load the host."""
    gc.disable()  # what is imported stays; looking through it again and again would find nothing
    import logging

    from pyrokernel.host.spawn import TemplateProcess, about_plugins
    from pyrokernel.wire import daemon, naming  # noqa: F401  for the template: the largest of what both need

    with open(0, "rb", closefd=False) as stdin:
        text = stdin.read()
    if not text:
        return 0  # whoever started this host has thought better of it
    given = taken(json.loads(text))
    keep_open(given["ready_fd"], given["lifeline_fd"])
    chosen = given.get("settings", {})
    gc.freeze()
    template = TemplateProcess.forked(about_plugins(chosen)) if CAN_FORK and not chosen.get("portable") else None
    from pyrokernel.host.process import run
    from pyrokernel.messages import HostConfig

    gc.enable()
    # A log file is for reading later what happened; a terminal is for what needs somebody now.
    level = logging.INFO if given.get("detached") else logging.WARNING
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s", level=level)
    return run(HostConfig.from_wire(given), template=template)


if __name__ == "__main__":
    code = main()
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.flush()
    # Not sys.exit: taking the interpreter apart takes 20 ms, and the client waits for that.
    os._exit(code)
