"""A Python of the shell's own, where what was gathered can be plotted or saved. Runs in the shell process.

A namespace and what runs in it; `local` has the commands. How values are looked at and completed is
the kernels' own way, imported on first use: the prompt does not wait for it.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import dataclasses
import io
import linecache
import os
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn, TextIO

from pyrokernel.tracebacks import format_error

_OWN_FOLDER = os.path.dirname(__file__) + os.sep

Offers = list[tuple[str, int, str]]
"""What Tab offers: each with where it begins in the text so far, and a word about it; shape (n_matches,)."""


@dataclasses.dataclass
class Outcome:
    """What came of a piece of code.

    `shown` is the repr of the value of a last expression, `error` the traceback, `unknown` the name that there is no
    variable of; each is "" when there is none.
    """

    value: Any = None
    shown: str = ""
    error: str = ""
    unknown: str = ""


class Here:
    """A namespace, and Python that runs in it, in the process and the thread of whoever calls.

    Whatever the code raises becomes the text of a traceback without frames of the shell, Ctrl-C
    included; only SystemExit leaves, as it does at a Python prompt.

    Args:
        given: Names that are there without being anybody's variable, with what makes the value at first use.

    Attributes:
        namespace: The variables.
    """

    def __init__(self, given: Mapping[str, Callable[[], Any]] | None = None) -> None:
        # Functions and classes of a `__main__` travel to kernels by value.
        self._module = types.ModuleType("__main__")
        self.namespace: dict[str, Any] = vars(self._module)
        self.namespace.update({"__builtins__": builtins, "exit": _leave, "quit": _leave})
        self._count = 0
        self._running = False
        self._given = given or {}
        self._gifts: dict[str, Any] = {}

    def run(self, source: str) -> Outcome:
        """Run statements; the value of a last expression is kept as `_`, unless a semicolon ends it."""
        filename = self._remember(source)

        def body(outcome: Outcome) -> None:
            self._give(source)
            tree: Any = compile(source, filename, "exec", ast.PyCF_ONLY_AST, dont_inherit=True)
            last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
            exec(compile(tree, filename, "exec", dont_inherit=True), self.namespace)
            if last is None:
                return
            value = eval(compile(ast.Expression(last.value), filename, "eval", dont_inherit=True), self.namespace)
            if value is not None and not source.rstrip().endswith(";"):
                from pyrokernel.kernel.results import over_lines

                outcome.shown = over_lines(value, repr(value))
                outcome.value = self.namespace["_"] = value

        return self._guard(body)

    def evaluate(self, expression: str, then: Callable[[Any], Any] | None = None) -> Outcome:
        """Evaluate an expression.

        Args:
            expression: One expression, which may go over several lines.
            then: Makes the outcome's value of it, as part of the same run: it may call the value's own code.
        """
        source = expression.strip()
        # In parentheses its lines need no mark of continuation.
        source = f"({source}\n)" if "\n" in source else source
        filename = self._remember(source)

        def body(outcome: Outcome) -> None:
            self._give(source)
            value = eval(compile(source, filename, "eval", dont_inherit=True), self.namespace)
            outcome.value = value if then is None else then(value)

        return self._guard(body)

    def variables(self) -> list[dict[str, Any]]:
        """List the variables by name, as `Kernel.variables` does."""
        from pyrokernel.kernel.inspection import list_variables

        gifts = {"exit": _leave, "quit": _leave, **self._gifts}
        return [
            found
            for found in list_variables(self.namespace)
            if found["name"] not in gifts or self.namespace.get(found["name"]) is not gifts[found["name"]]
        ]

    def offer(self, code: str) -> Offers:
        """Complete Python at its end; where nothing is typed yet, the variables. Runs no code of theirs."""
        if not code.strip():
            return self.offer_names(code)
        from pyrokernel.kernel.completion import complete

        self._give(code)
        found = complete(code, len(code), self.namespace, files=True)
        return [(match, found.cursor_start, kind) for match, kind in zip(found.matches, found.types, strict=True)]

    def offer_names(self, text: str) -> Offers:
        """Complete the name of a variable that is all of a text."""
        word = text.lstrip()
        start = len(text) - len(word)
        return [(found["name"], start, found["type"]) for found in self.variables() if found["name"].startswith(word)]

    def _give(self, source: str) -> None:
        """Put the given names that a source may mean into the namespace, unless somebody has set them."""
        for name, make in self._given.items():
            if name in source and name not in self.namespace:
                if name not in self._gifts:
                    self._gifts[name] = make()
                self.namespace[name] = self._gifts[name]

    def _remember(self, source: str) -> str:
        """Give tracebacks and `inspect.getsource` the lines of a source; return what they call it."""
        self._count += 1
        filename = f"<here {self._count}>"
        lines = io.StringIO(source if source.endswith("\n") else source + "\n", newline=None).readlines()
        # The time of None keeps linecache.checkcache from looking for such a file.
        linecache.cache[filename] = (len(source), None, lines, filename)
        return filename

    def _guard(self, body: Callable[[Outcome], None]) -> Outcome:
        """Run code; what it raises becomes text."""
        outcome = Outcome()
        try:
            with self._at_home():
                body(outcome)
        except SystemExit:
            raise
        except BaseException as error:  # noqa: BLE001 - the user's code may raise anything
            # As at a Python prompt: for `pdb.pm()` and `traceback.print_last()`.
            sys.last_type, sys.last_value, sys.last_traceback = type(error), error, error.__traceback__
            unknown = str(error.name or "") if type(error) is NameError else ""
            outcome = Outcome(error=format_error(error, (_OWN_FOLDER,)), unknown=unknown)
        return outcome

    @contextlib.contextmanager
    def _at_home(self) -> Iterator[None]:
        """Let this namespace be `__main__`, Ctrl-C raise, and the terminal be at its margin at the end."""
        main = sys.modules.get("__main__")
        stdout = _Watched(sys.stdout)
        with contextlib.redirect_stdout(stdout), self._interruptible():
            # Where pickle and dataclasses look for what was defined here.
            sys.modules["__main__"] = self._module
            try:
                yield
            finally:
                self._running = False
                if main is not None:
                    sys.modules["__main__"] = main
                # A prompt would be drawn over a line that was begun.
                if stdout.open_line:
                    stdout.write("\n")

    @contextlib.contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Have SIGINT raise while code runs, and not a moment longer."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def press(signum: int, frame: types.FrameType | None) -> None:
            if self._running:
                raise KeyboardInterrupt

        before = signal.signal(signal.SIGINT, press)
        try:
            self._running = True
            yield
        finally:
            self._running = False
            signal.signal(signal.SIGINT, before)


def described(value: Any) -> str:
    """Say what a value is, in a few words: its type, and its shape or how many items it has."""
    from pyrokernel.kernel.columns import is_array
    from pyrokernel.kernel.summaries import size

    name = type(value).__name__
    if is_array(value):
        return f"{name}, {' x '.join(map(str, value.shape)) or 'no axis'}"
    count = size(value)
    return name if count is None else f"{name} of {count:,}"


class _Watched:
    """Standard output that knows whether a line on it has been begun.

    Args:
        stream: The real one.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.open_line = False

    def write(self, text: str) -> int:
        written = self._stream.write(text)
        if text:
            self.open_line = not text.endswith("\n")
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _leave(code: Any = None) -> NoReturn:
    """Leave the shell, as `exit` does; Python's own would close standard input on the way."""
    raise SystemExit(code)
