"""pdb in cells: where it begins, what it may look into, how it is left. Runs in the kernel process."""

from __future__ import annotations

import os
import sys
import traceback
import types
from typing import Any

from pyrokernel import arguments, commands
from pyrokernel.messages import HABIT

OWN_FRAMES = (os.path.dirname(__file__) + os.sep, HABIT, arguments.__file__, commands.__file__)
"""How the file names of frames begin that are none of the user's."""


def keep_failure(error: BaseException) -> None:
    """Let `pdb.pm()` look into the last failure, as at Python's own prompt; its frames live until the next one."""
    steps = error.__traceback__
    while steps is not None and steps.tb_frame.f_code.co_filename.startswith(OWN_FRAMES):
        steps = steps.tb_next
    # Without a frame of the user's there is nothing to look into; whoever left a debugger has looked.
    if steps is None or isinstance(error, SystemExit) or type(error).__module__ == "bdb":
        return
    BaseException.with_traceback(error, steps)  # where pdb begins, since 3.13
    sys.last_type, sys.last_value, sys.last_traceback = type(error), error, steps
    sys.last_exc = error  # type: ignore[attr-defined, unused-ignore]  # since 3.12


def look_back() -> None:
    """Open pdb on the last failure, and say first which it is: another one may have come since the user saw it."""
    if getattr(sys, "last_traceback", None) is None:
        print("nothing has failed in this kernel yet")
        return
    print("".join(traceback.format_exception_only(sys.last_value)), end="")
    import pdb  # noqa: T100  here it is wanted; 10 ms that only debugging needs

    pdb.pm()


def break_here(*args: Any, **kwargs: Any) -> None:
    """Stand in as `sys.breakpointhook`: pdb does not step from the end of a cell into this room, nor takes SIGINT."""
    if os.environ.get("PYTHONBREAKPOINT"):
        sys.__breakpointhook__(*args, **kwargs)  # noqa: T100  the user chose another debugger, or none
        return
    import pdb  # noqa: T100  here it is wanted; 10 ms that only debugging needs

    pdb.Pdb(skip=[f"{__package__}.*"], nosigint=True).set_trace(sys._getframe(1))


def leave() -> None:
    """End the tracing of a debugger that was stepped out of its cell: it would stop in the next one."""
    tracer = sys.gettrace()
    if tracer is None:
        return
    bdb = sys.modules.get("bdb")
    if bdb is not None and isinstance(tracer, types.MethodType) and issubclass(type(tracer.__self__), bdb.Bdb):
        sys.settrace(None)
