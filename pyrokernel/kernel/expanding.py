"""Values of the namespace in commands such as `!echo $name {expression}`. Runs in the kernel process."""

from __future__ import annotations

import re
import string
from typing import Any

from pyrokernel.messages import HABIT

_NAME = re.compile(r"[A-Za-z_]\w*")


def expand(command: str, variables: dict[str, Any]) -> str:
    """Put values of the namespace into a command: `$name` and `{expression}`.

    As in IPython, `$$` is a dollar, `{{` and `}}` are braces, and single quotes keep a `$` from meaning
    anything. What is no variable, or no Python, stays as it is: it may mean something to the shell.
    """
    parts: list[str] = []
    quote, braces, at = "", 0, 0
    while at < len(command):
        sign, pair = command[at], command[at : at + 2]
        text, length = sign, 1
        if sign == "\\" and quote != "'":
            text, length = pair, 2
        elif sign in "'\"" and quote in ("", sign):
            quote = "" if quote else sign
        elif sign == "$" and quote != "'":
            text, length = _dollar(command, at, variables)
        elif pair == "{{":
            text, length, braces = "{", 2, braces + 1
        elif pair == "}}" and braces:
            text, length, braces = "}", 2, braces - 1
        elif sign == "{":
            text, length = _braces(command, at, variables)
        parts.append(text)
        at += length
    return "".join(parts)


def _dollar(command: str, at: int, variables: dict[str, Any]) -> tuple[str, int]:
    """Return what a dollar sign becomes, together with the characters after it that are used up."""
    if command.startswith("$$", at):
        return "$", 2
    if command.startswith("${", at):
        end = command.find("}", at)
        return (command[at : end + 1], end + 1 - at) if end > 0 else ("${", 2)
    name = _NAME.match(command, at + 1)
    if name is None or name[0] not in variables:
        return "$", 1
    return str(variables[name[0]]), name.end() - at


def _braces(command: str, at: int, variables: dict[str, Any]) -> tuple[str, int]:
    """Return what an opening brace becomes, together with the characters up to its closing one."""
    end = at
    while (end := command.find("}", end + 1)) > 0:
        for expression, spec, conversion in _readings(command[at + 1 : end]):
            # The name of a builtin alone is more likely a word of another language, as in awk '{print}'.
            if _NAME.fullmatch(expression) and expression not in variables:
                continue
            try:
                value = eval(compile(expression.strip(), HABIT, "eval", dont_inherit=True), variables)
            except (SyntaxError, NameError):
                continue
            return format(string.Formatter().convert_field(value, conversion), spec), end + 1 - at
    return "{", 1


def _readings(text: str) -> list[tuple[str, str, Any]]:
    """Return how what stands in braces can be read: expression, format, conversion."""
    readings: list[tuple[str, str, Any]] = [(text, "", None)] if text.strip() else []
    try:
        parsed = list(string.Formatter().parse("{" + text + "}"))
    except ValueError:
        return readings
    if len(parsed) == 1 and parsed[0][1] and (parsed[0][2] or parsed[0][3]):
        readings.append((parsed[0][1], parsed[0][2] or "", parsed[0][3]))
    return readings
