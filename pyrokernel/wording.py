"""The parameters of a command as words of a command line. Runs in the caller's process.

`pyrokernel call` and the shell make the parser of a command of the description that kernels give
(`CommandInfo.parameters`), so that one annotated function is a command line as well.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def add_arguments(parser: argparse.ArgumentParser, parameters: Sequence[Mapping[str, Any]]) -> None:
    """Make the parameters of a command arguments of a parser: what is required by position, the rest as options.

    Args:
        parser: Of the command.
        parameters: As `CommandInfo.parameters` has them.
    """
    for one in parameters:
        name, word = one["name"], one["type"]
        about = one["help"] or ""
        if one["kind"] == "options":
            parser.add_argument(_dest(name), nargs="*", metavar="NAME=VALUE", type=_assignment, help=about)
            continue
        many = word.startswith("list of ") or one["kind"] == "rest"
        word = word.removeprefix("list of ")
        options: dict[str, Any] = {"help": (about or None)}
        if one["choices"]:
            options["choices"] = one["choices"]
        if word == "bool" and not many and not one["required"]:
            options["help"] = f"{about} (default: {one['default']})".lstrip()
            parser.add_argument(
                _flag(name), dest=_dest(name), action=argparse.BooleanOptionalAction, default=None, **options
            )
            continue
        options["type"] = _READERS[word]
        options["metavar"] = None if one["choices"] else name.upper()
        if one["required"] and one["kind"] != "keyword":
            parser.add_argument(_dest(name), nargs="+" if many else None, **options)
        elif one["kind"] == "rest":
            parser.add_argument(_dest(name), nargs="*", **options)
        else:
            default = "" if one["required"] else f"(default: {one['default']})"
            options["help"] = f"{about} {default}".strip().replace("%", "%%")
            parser.add_argument(
                _flag(name),
                dest=_dest(name),
                nargs="+" if many else None,
                required=one["required"],
                default=None,
                **options,
            )


def arguments_from(
    parsed: argparse.Namespace, parameters: Sequence[Mapping[str, Any]]
) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments of the call that a command line means: positional ones, and those by name.

    Args:
        parsed: What a parser of `add_arguments` read.
        parameters: As for that.
    """
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    by_name = False
    for one in parameters:
        value = getattr(parsed, _dest(one["name"]), None)
        if one["kind"] == "rest":
            args += value or []
        elif one["kind"] == "options":
            kwargs |= dict(value or [])
        elif value is None:
            by_name = True
        elif one["kind"] == "positional" or (one["kind"] == "either" and not by_name):
            args.append(value)
        else:
            kwargs[one["name"]] = value
    return args, kwargs


def read_literal(text: str) -> Any:
    """Return what a word means where anything is taken: a Python literal, else the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def _read_bool(text: str) -> bool:
    words = {"yes": True, "true": True, "1": True, "on": True, "no": False, "false": False, "0": False, "off": False}
    try:
        return words[text.lower()]
    except KeyError:
        raise argparse.ArgumentTypeError(f"{text!r} is not yes or no") from None


def _read_int(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not an int") from None


def _read_float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a float") from None


def _assignment(text: str) -> tuple[str, Any]:
    name, sign, value = text.partition("=")
    if not sign or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, read_literal(value)


_READERS: dict[str, Callable[[str], Any]] = {
    "int": _read_int,
    "float": _read_float,
    "bool": _read_bool,
    "str": str,
    "path": str,
    "any": read_literal,
}


def _dest(name: str) -> str:
    """Return where the value of a parameter is kept: parsers have attributes of their own."""
    return f"argument_{name}"


def _flag(name: str) -> str:
    return "--" + name.strip("_").replace("_", "-")
