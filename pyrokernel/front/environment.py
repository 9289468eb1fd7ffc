"""What a shell for others leaves of the environment that it was started in. Runs in the shell process.

A client of OpenSSH sends variables along, of telnetd too; which of them arrive is the server's to say, and a slip there
must not let others choose the settings, the plugins or the mesh. What Python itself reads (PYTHONPATH, say) has been
read before: docs/terminals.md says what the server must not let in.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import MutableMapping

from pyrokernel.front.exits import ExitCode
from pyrokernel.front.terminal import complain
from pyrokernel.settings import ENV_PREFIX

_KEPT = re.compile(
    r"HOME|USER|LOGNAME|PATH|LANG|LC_[A-Z]+"  # whose account it is, where programs are, how text is written
    r"|TERM|COLORTERM|NO_COLOR|PROMPT_TOOLKIT_NO_CPR"  # what the terminal can
)


def forget_environment(environ: MutableMapping[str, str]) -> None:
    """Leave what says whose account, which language and which terminal this is.

    Ends the process if Python would take lines itself when the shell has ended.
    """
    ignored = sorted(name for name in environ if name.startswith(ENV_PREFIX))
    for name in [name for name in environ if not _KEPT.fullmatch(name)]:
        del environ[name]
    if sys.flags.inspect:
        complain("PYTHONINSPECT, or python -i, would give a Python of this machine to others; start it without")
        os._exit(ExitCode.USAGE)  # any other way out leads to that Python
    if ignored:
        complain(f"{', '.join(ignored)}: not read in a shell for others; use options, --config or --trust-environment")
