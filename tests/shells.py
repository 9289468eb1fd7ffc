"""Shells over real kernels: in pseudo-terminals, or fed with lines. Runs in the test process."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator

from terminals import Terminal

import pyrokernel as pk

Start = Callable[..., Terminal]

SHELL = [sys.executable, "-m", "pyrokernel", "shell"]


@contextlib.contextmanager
def starting(mesh: pk.Mesh, *, prompt: str = "k0>", options: tuple[str, ...] = (), **always: str) -> Iterator[Start]:
    """Start shells, each waited for until its prompt; all are closed at the end.

    Args:
        mesh: Whose kernels they reach.
        prompt: What is waited for, unless a start says otherwise; "" for nothing.
        options: Words of every command line.
        always: Environment variables of every shell.
    """
    opened: list[Terminal] = []

    def begin(*words: str, prompt: str = prompt, columns: int = 120, **variables: str) -> Terminal:
        environ = {**os.environ, **mesh.settings.to_env(), **always, **variables}
        terminal = Terminal([*SHELL, *options, *words], environ, size=(40, columns))
        opened.append(terminal)
        if prompt:
            terminal.expect(prompt)
        return terminal

    yield begin
    for terminal in opened:
        terminal.close()


def interrupt_all(mesh: pk.Mesh) -> None:
    """End what a test left running."""
    for kernel in mesh[:]:
        if kernel.describe()["running"]:
            kernel.interrupt(wait=2.0)


def run(mesh: pk.Mesh, *arguments: str, text: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a shell without a terminal; `text` is its standard input."""
    environ = {**os.environ, **mesh.settings.to_env(), **variables}
    return subprocess.run(
        [*SHELL, *arguments], env=environ, input=text, capture_output=True, text=True, timeout=60, check=False
    )


def run_lines(mesh: pk.Mesh, *lines: str, words: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run lines as a script, on all kernels unless words say otherwise."""
    return run(mesh, *words, text="\n".join(lines) + "\n")
