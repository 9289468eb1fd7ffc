"""The template: a warm process that is forked into kernels. Runs in the template process, and begins each kernel.

The first one is forked from the host itself, as soon as that has imported what both need
(`begin`); later ones are `python -m pyrokernel.host.template FD ROLE MODULE...` with one end
of a socket pair. A template imports the kernel's rooms and the modules to preload, reports how
many threads that left it with, and then forks on request. It runs no daemon, starts no
thread, and holds nothing that would be missed: each kernel is handed over to the host
(a subreaper) at birth, so the death of a template costs no kernel.

A request is four bytes of length, sent along with the descriptors, and a `KernelBirth`
in JSON. Answers are lines of JSON: {"warm": threads}, {"failed": error},
{"born": instance, "pid": number}, {"unborn": instance, "reason": text}.
"""

from __future__ import annotations

import dataclasses
import gc
import importlib
import json
import os
import signal
import socket
import struct
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from pyrokernel import plugins, settings
from pyrokernel.again import keep_open, show_as
from pyrokernel.errors import error_to_wire
from pyrokernel.host.roles import ROLES
from pyrokernel.messages import KernelBirth
from pyrokernel.wire import codec

LENGTH = struct.Struct("!I")
"""Head of a request."""


def main() -> None:
    """Be a template in an interpreter of its own; returns when the host has closed the socket."""
    _be_template(socket.socket(fileno=int(sys.argv[1])), sys.argv[2], sys.argv[3:])


def begin(control_fd: int, output: int, environ: Mapping[str, str]) -> NoReturn:
    """Be a template from now on, in a fork of a host.

    Args:
        control_fd: Its end of a socket pair.
        output: Descriptor that becomes 1 and 2.
        environ: Variables of its own.
    """
    code = 1
    try:
        os.setsid()
        _take_descriptors(output)
        keep_open(control_fd)
        os.environ.update(environ)
        _be_template(socket.socket(fileno=control_fd), "kernel", ())
        code = 0
    except BaseException:  # noqa: BLE001 - last stop, before the code of the host would go on here
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(code)


def _be_template(control: socket.socket, role: str, preload: Sequence[str]) -> None:
    """Get warm, then serve until the host closes the socket; returns only in the template itself."""
    show_as("pk-template")
    # What a template imports lives as long as its kernels do: collecting it would only copy pages.
    gc.disable()
    try:
        entry = _entry(role)
        if not sys.path or sys.path[0] not in ("", os.getcwd()):
            sys.path.insert(0, "")  # what the user preloads may be a file beside the mesh
        for name in preload:
            importlib.import_module(name)
        _preload_plugins()
    except BaseException as error:  # noqa: BLE001 - preloaded modules are the user's; they may even exit
        _answer(control, failed={**error_to_wire(error), "traceback": traceback.format_exc()})
        return
    _rehearse()
    threads = count_threads()
    _answer(control, warm=threads)
    if threads > 1:
        return
    gc.freeze()
    birth = _serve(control)
    if birth is not None:
        _live(entry if birth.role == role else _entry(birth.role), birth)


def _entry(role: str) -> Any:
    """Import the function that is a process of that role."""
    module, _, function = ROLES[role].entry.partition(":")
    return getattr(importlib.import_module(module), function)


def _rehearse() -> None:
    """Do what each kernel does at its birth or in its first call, so that it inherits what that leaves in memory."""
    settings.load(environ=settings.Settings().to_env())
    codec.get_ready()


def _preload_plugins() -> None:
    """Find the plugins, so that kernels need not, and import those whose sections say so.

    Here, in the main thread, because what they import may insist on it; one that hangs is cut short by an alarm.
    """

    def give_up(number: int, frame: object) -> None:
        raise TimeoutError(f"its preload did not end within {plugins.PRELOAD_SECONDS:g} s")

    before = signal.signal(signal.SIGALRM, give_up)
    try:
        plugins.preload(
            settings.load(), each_within=lambda: signal.setitimer(signal.ITIMER_REAL, plugins.PRELOAD_SECONDS)
        )
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def count_threads() -> int:
    """Return how many threads this process has, those started by C libraries included."""
    try:
        return max(threading.active_count(), len(os.listdir("/proc/self/task")))
    except FileNotFoundError:
        return threading.active_count()


def _serve(control: socket.socket) -> KernelBirth | None:
    """Fork on request; return a birth in each new kernel, and None when the host is gone."""
    while True:
        head, descriptors, _, _ = socket.recv_fds(control, LENGTH.size, 3, socket.MSG_CMSG_CLOEXEC)
        body = _receive(control, *LENGTH.unpack(head)) if head else b""
        if not body:
            return None
        birth = KernelBirth.from_wire(json.loads(body))
        try:
            pid = _fork()
        except OSError as error:
            _answer(control, unborn=birth.instance, reason=f"fork: {error.strerror}")
        else:
            if pid == 0:
                control.close()
                return _take(birth, descriptors)
            _answer(control, born=birth.instance, pid=pid)
        for descriptor in descriptors:
            os.close(descriptor)


def _receive(control: socket.socket, size: int) -> bytes:
    parts = []
    while size:
        part = control.recv(size)
        if not part:
            return b""
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _fork() -> int:
    """Fork a grandchild whose parent is gone, so that it belongs to the host; return its pid, 0 in itself.

    Raises:
        OSError: The system gives no more processes.
    """
    read_end, write_end = os.pipe()
    middle = os.fork()
    if middle == 0:
        try:
            pid = os.fork()
        except OSError as error:
            os.write(write_end, b"%d" % -(error.errno or 0))
            os._exit(1)
        if pid:
            os.write(write_end, b"%d" % pid)
            os._exit(0)
        os.close(read_end)
        os.close(write_end)
        return 0
    os.close(write_end)
    answer = os.read(read_end, 32)
    os.close(read_end)
    # Only when the middle one is reaped is the host sure to be the parent.
    os.waitpid(middle, 0)
    pid = int(answer or b"-11")  # EAGAIN for a middle process that was killed before it could say
    if pid < 0:
        raise OSError(-pid, os.strerror(-pid))
    return pid


def _take(birth: KernelBirth, descriptors: list[int]) -> KernelBirth:
    """Make the newborn process a session of its own with its own descriptors."""
    os.setsid()
    output, ready_fd, *lifeline = descriptors
    _take_descriptors(output)
    os.close(output)
    return dataclasses.replace(birth, ready_fd=ready_fd, lifeline_fd=lifeline[0] if lifeline else -1)


def _take_descriptors(output: int) -> None:
    """Read from nowhere and write to a file."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(null)


def _live(entry: Any, birth: KernelBirth) -> NoReturn:
    """Become the kernel."""
    try:
        gc.enable()
        # `random` reseeds itself after a fork; NumPy's global generator would be the same in every kernel.
        numpy_random = sys.modules.get("numpy.random")
        if numpy_random is not None:
            numpy_random.seed()
        entry(birth)
    except BaseException:  # noqa: BLE001 - last stop; the host shows this text as the reason for the kernel's end
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(1)


def _answer(control: socket.socket, **fields: Any) -> None:
    control.sendall(json.dumps(fields).encode() + b"\n")


if __name__ == "__main__":
    main()
