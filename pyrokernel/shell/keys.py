"""The prompt as Python needs it: completion, colours, blocks, paste, history. Runs in the shell process."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING

from prompt_toolkit.application import Application, get_app
from prompt_toolkit.buffer import Buffer, CompletionState
from prompt_toolkit.completion import CompleteEvent, Completion, get_common_complete_suffix
from prompt_toolkit.filters import Condition, completion_is_selected
from prompt_toolkit.history import History
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent, merge_key_bindings
from prompt_toolkit.keys import Keys
from prompt_toolkit.layout.processors import HighlightMatchingBracketProcessor
from prompt_toolkit.styles import merge_styles

from pyrokernel.shell.completer import Router
from pyrokernel.shell.lexer import COLOURS, ShellLexer, python_lexer
from pyrokernel.shell.source import dedented, margin_below, without_prompts

if TYPE_CHECKING:
    from pyrokernel.shell.app import Shell

MAX_LINES = 10_000
MAX_LENGTH = 500_000
"""What the prompt holds, in lines and characters: of more, each key would take seconds."""


def set_up_prompt(shell: Shell, history: History) -> None:
    """Replace what cmd2 puts into its prompt.

    Args:
        shell: Whose.
        history: Lines typed before.
    """
    session = shell.main_session
    session.completer = Router(shell)
    session.lexer = ShellLexer(shell.reader)
    session.style = merge_styles([session.style, COLOURS] if session.style else [COLOURS])
    session.input_processors = [*(session.input_processors or ()), HighlightMatchingBracketProcessor()]
    session.prompt_continuation = lambda width, line_number, wrap_count: "... ".rjust(width)
    # cmd2 asks the buffer that has the focus: a search for `f(` would be a block, and lose its way back.
    session.multiline = Condition(lambda: not shell.reader.finished(session.default_buffer.text))
    assert session.key_bindings is not None  # cmd2 passes its own
    session.key_bindings = merge_key_bindings([session.key_bindings, _bindings(shell)])
    if shell.interactive:
        session.history = session.default_buffer.history = history
        colour_soon(shell)
    if shell.restricted:
        session.enable_suspend = False


def colour_soon(shell: Shell) -> None:
    """Get ready to colour Python once the first prompt is on the screen, and draw it anew then."""
    session = shell.main_session

    def work(loop: asyncio.AbstractEventLoop) -> None:
        # Another object, because what was drawn is kept by lexer and text.
        session.lexer = ShellLexer(shell.reader, python_lexer())
        with contextlib.suppress(RuntimeError):  # the loop is closed: that prompt has ended already
            loop.call_soon_threadsafe(session.app.invalidate)

    def begin(_: Application[str]) -> None:
        session.app.after_render -= begin
        threading.Thread(target=work, args=(asyncio.get_running_loop(),), name="colours", daemon=True).start()

    session.app.after_render += begin


def _bindings(shell: Shell) -> KeyBindings:
    bindings = KeyBindings()

    def typing() -> bool:
        """Whether this is a line of the shell; searches, and answers to kernels, have these keys too."""
        return shell.interactive and get_app().current_buffer is shell.main_session.default_buffer

    def in_block() -> bool:
        """Whether Enter asks for one more line."""
        return typing() and not shell.reader.finished(get_app().current_buffer.text)

    @bindings.add(Keys.BracketedPaste)
    def paste(event: KeyPressEvent) -> None:
        """Insert a pasted block whole; cmd2 would replay it as keystrokes, and run its first half.

        Margin and prompts go only where it is all there is: in the middle of a text they may be part of a string.
        """
        text = event.data.replace("\r\n", "\n").replace("\r", "\n")
        before = event.current_buffer.text
        if len(before) + len(text) > MAX_LENGTH or before.count("\n") + text.count("\n") >= MAX_LINES:
            instead = "" if "run" in shell.refused else "; save it to a file, and `run FILE`"
            shell.tell(f"not pasted: the prompt holds {MAX_LINES} lines or {MAX_LENGTH} characters{instead}")
            return
        event.current_buffer.insert_text(text if before else dedented(without_prompts(text)))

    @bindings.add("tab", filter=Condition(_in_margin))
    def indent(event: KeyPressEvent) -> None:
        """Indent, where there is nothing to complete."""
        event.current_buffer.insert_text("    ")

    @bindings.add("tab", filter=Condition(typing) & ~Condition(_in_margin))
    def complete(event: KeyPressEvent) -> None:
        """Complete before the next key is looked at.

        prompt_toolkit would ask in the background, and Enter right after Tab run what was not completed yet.
        """
        if event.current_buffer.complete_state:
            event.current_buffer.complete_next()
        else:
            _complete(event.current_buffer)

    @bindings.add("enter", filter=Condition(in_block) & ~completion_is_selected)
    def next_line(event: KeyPressEvent) -> None:
        """Go on with a block at its margin."""
        event.current_buffer.insert_text("\n" + margin_below(event.current_buffer.document.text_before_cursor))

    @bindings.add("escape", "enter", filter=Condition(typing))
    def more(event: KeyPressEvent) -> None:
        """Add a line where Enter would run what is there."""
        next_line(event)

    return bindings


def _complete(buffer: Buffer) -> None:
    """Insert what all matches begin with, and list them where there are several."""
    found = list(buffer.completer.get_completions(buffer.document, CompleteEvent(completion_requested=True)))
    if not found:
        return
    common = get_common_complete_suffix(buffer.document, found)
    _offer(buffer, found)
    if len(found) == 1:
        buffer.apply_completion(found[0])
    elif common:
        buffer.insert_text(common)
        _offer(buffer, [match.new_completion_from_position(len(common)) for match in found])


def _offer(buffer: Buffer, found: list[Completion]) -> None:
    """List matches, and tell whoever waits for that, as the tour does, also of one that is inserted at once."""
    buffer.complete_state = CompletionState(buffer.document, found[: buffer.max_number_of_completions])
    buffer.on_completions_changed.fire()


def _in_margin() -> bool:
    """Whether the cursor stands where only an indent can come."""
    document = get_app().current_buffer.document
    return document.cursor_position_row > 0 and not document.current_line_before_cursor.strip()
