"""docs/cli.md says what the parser says. After a change, `python tests/meta/test_cli_docs.py` writes it anew."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyrokernel.cli import ExitCode, build_parser

DOCS = Path(__file__).parents[2] / "docs" / "cli.md"

HEAD = """# The command line

Made from the parser by `python tests/meta/test_cli_docs.py`; a test compares the two.

`pyrokernel COMMAND --help` shows the same at the terminal, and `python -m pyrokernel` is the same command.
Errors are one line on standard error, `pyrokernel: ...`, which ends with what to try next.
Output is plain where it does not go to a terminal, and where `NO_COLOR` is set.
A wrong command line ends with code 2 and a line that suggests what may be meant; `pyrokernel` alone shows the commands
and ends with code 2, too. Sizes are written as `4096`, `512M` or `4 GiB`, times as `90`, `30m`, `2h` or `1d`, in
options, mesh files, configuration files and environment variables alike.
"""

DOING = {
    ExitCode.OK: "all went well",
    ExitCode.CODE_RAISED: "your code raised in a kernel, or an init file did at `serve --detach`",
    ExitCode.USAGE: "the command line, a setting or a mesh file is wrong",
    ExitCode.NO_MESH: "no mesh is running, or its name server does not answer",
    ExitCode.NO_KERNEL: "no kernel, cell, command, shipped module, reference or shared key goes by that name",
    ExitCode.KERNEL_DIED: "a kernel died, was restarted under way, or does not answer",
    ExitCode.TIMEOUT: "no answer in time; what has started goes on",
    ExitCode.REFUSED: "not allowed, protected, or the name is taken",
    ExitCode.UNWELL: "`doctor` found something wrong",
    ExitCode.FAILED: "anything else that the machinery could not do",
    ExitCode.INTERRUPTED: "Ctrl-C",
    ExitCode.PIPE_CLOSED: "whoever read the output has gone",
}


def subparsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the commands of a parser, and theirs by the words that one types."""
    found: dict[str, argparse.ArgumentParser] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                found[name] = command
                found |= {f"{name} {word}": one for word, one in subparsers(command).items()}
    return found


def render(parser: argparse.ArgumentParser) -> str:
    """Write the page. Not from `format_help`, whose layout changes with the version of Python."""
    parts = [HEAD, "## Everywhere\n", *options(parser, common=True)]
    for name, command in subparsers(parser).items():
        words = [shown(action) for action in command._actions if not action.option_strings]
        parts += [
            f"\n{'##' if ' ' not in name else '###'} {name}\n",
            f"    pyrokernel {' '.join([name, *words, '[options]'])}\n",
            f"{command.description}\n",
        ]
        told = list(options(command, common=False))
        parts += told
        if command.epilog:
            parts += [
                *([""] if told else []),
                *textwrap.wrap(command.epilog, 119, break_long_words=False, break_on_hyphens=False),
            ]
    parts += ["\n## Exit codes\n", "| code | name | meaning |", "|---|---|---|"]
    parts += [f"| {code.value} | {code.name} | {DOING[code]} |" for code in ExitCode]
    parts += ["\n`run` ends with the code that a script gave to `sys.exit`, whatever that code means here."]
    return "\n".join(parts) + "\n"


def options(parser: argparse.ArgumentParser, *, common: bool) -> Iterator[str]:
    """Describe arguments and options; those that every command has only once."""
    everywhere = {
        "mesh",
        "ns",
        "config",
        "verbose",
        "no_plugin",
        "plugins_dir",
        "before_no_plugin",
        "before_plugins_dir",
    }
    for action in parser._actions:
        if action.help in (None, argparse.SUPPRESS) or isinstance(action, argparse._SubParsersAction):
            continue
        if action.dest == "help" or ((action.dest in everywhere) != common and action.dest != "version"):
            continue
        yield f"- `{shown(action)}`: {action.help}"


def shown(action: argparse.Action) -> str:
    """Return how an argument is written."""
    value = action.metavar or ("|".join(action.choices) if action.choices else "")
    if not action.option_strings:
        return {"?": f"[{value}]", "*": f"[{value} ...]", "+": f"{value} ..."}.get(str(action.nargs), str(value))
    return " ".join(filter(None, (", ".join(action.option_strings), str(value) if action.nargs != 0 else "")))


def test_the_page_is_what_the_parser_says() -> None:
    assert DOCS.read_text() == render(build_parser()), "run: python tests/meta/test_cli_docs.py"


@pytest.mark.parametrize("name", subparsers(build_parser()))
def test_every_command_and_option_has_a_help_text(name: str) -> None:
    for action in subparsers(build_parser())[name]._actions:
        assert action.help, f"{name} {shown(action)} says nothing"


@pytest.mark.parametrize("name", subparsers(build_parser()))
def test_help_fits_a_small_terminal(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as ended:
        build_parser().parse_args([*name.split(), "--help"])
    assert ended.value.code == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


if __name__ == "__main__":
    DOCS.write_text(render(build_parser()))
