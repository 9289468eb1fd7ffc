"""A Linux without what Windows lacks, for our own modules. Runs in every process that has this folder on its path.

Modules of pyrokernel get copies of `os`, `signal`, `socket`, `select` and `mmap` without it, and no `fcntl` at all; the
standard library and other packages, which know what to do without, keep theirs. What nobody may do in portable mode,
not by other ways either, raises an error for all: unix sockets (but pairs within a process), fork, memory without a
name.
"""

from __future__ import annotations

import builtins
import fcntl
import mmap
import os
import select
import signal
import socket
import sys
import types
from typing import Any

MISSING_MODULES = {"fcntl", "grp", "pty", "pwd", "resource", "termios", "tty"}

MISSING = {
    os: """
        O_CLOEXEC O_DIRECTORY O_NOFOLLOW O_NONBLOCK P_ALL P_PID WEXITED WEXITSTATUS WIFSIGNALED WNOHANG WNOWAIT WTERMSIG
        chown fchmod fchown fork forkpty getegid geteuid getgid getpgid getpgrp getsid getuid killpg memfd_create
        pidfd_open pipe2 posix_spawn posix_spawnp pread preadv pwrite pwritev register_at_fork sched_getaffinity
        sched_yield set_blocking setpgid setsid statvfs sysconf uname wait wait3 wait4 waitid
        """,
    signal: """
        ITIMER_REAL SIGALRM SIGCHLD SIGCONT SIGHUP SIGIO SIGKILL SIGPIPE SIGQUIT SIGSTOP SIGTSTP SIGURG SIGUSR1 SIGUSR2
        SIGWINCH alarm getitimer pause pthread_kill pthread_sigmask setitimer siginterrupt sigwait
        """,
    socket: """
        AF_UNIX CMSG_LEN CMSG_SPACE MSG_CMSG_CLOEXEC MSG_DONTWAIT MSG_NOSIGNAL SCM_RIGHTS SO_PEERCRED recv_fds send_fds
        """,
    select: "epoll kevent kqueue poll",
    mmap: "MADV_HUGEPAGE MAP_ANONYMOUS MAP_PRIVATE MAP_SHARED PROT_READ PROT_WRITE",
}
"""By the documentation of the standard library."""


def lacking(module: types.ModuleType) -> types.ModuleType:
    """Return a copy of a module without what is missing."""
    copy, missing = types.ModuleType(module.__name__, module.__doc__), set(MISSING[module].split())
    copy.__dict__.update({name: value for name, value in vars(module).items() if name not in missing})
    return copy


class Socket(socket.socket):
    """One without what only unix sockets do."""

    def sendmsg(self, *_: Any) -> int:
        raise AttributeError("Windows has no sendmsg")

    def recvmsg_into(self, *_: Any) -> Any:
        raise AttributeError("Windows has no recvmsg_into")


def forbid(what: str) -> Any:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError(f"{what} in portable mode")

    return refuse


def refuse_unix_sockets(plain: Any) -> Any:
    def init(self: Any, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None) -> None:
        if family == socket.AF_UNIX and fileno is None:
            raise AssertionError("a unix socket in portable mode")
        plain(self, family, type, proto, fileno)

    return init


def locking(descriptor: int, mode: int, size: int) -> None:
    """Lock a file as `msvcrt` does; of the two ways only the one that does not wait."""
    assert (mode, size) == (msvcrt.LK_NBLCK, 1)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise PermissionError("Permission denied") from error


msvcrt: Any = types.ModuleType("msvcrt")
msvcrt.LK_NBLCK, msvcrt.locking = 2, locking

COPIES = {module.__name__: lacking(module) for module in MISSING}
COPIES["msvcrt"] = msvcrt
COPIES["socket"].socket = Socket  # type: ignore[attr-defined]  # a module as any other
plain_import = builtins.__import__


def import_lacking(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
    """Import a module, for one of ours what Windows has of it."""
    if level == 0 and globals is not None and str(globals.get("__name__")).startswith("pyrokernel"):
        if name in MISSING_MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        if name in COPIES:
            return COPIES[name]
    return plain_import(name, globals, locals, fromlist, level)


builtins.__import__ = import_lacking
socket.socket.__init__ = refuse_unix_sockets(socket.socket.__init__)  # type: ignore[method-assign]  # on purpose
os.fork = forbid("fork")
os.memfd_create = forbid("memfd_create")
sys.pyrokernel_lacks = True  # type: ignore[attr-defined]  # for the test to see that this has run
