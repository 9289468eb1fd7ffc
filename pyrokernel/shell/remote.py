"""The commands of kernels as commands of the shell. Runs in the shell process.

What kernels have is asked where somebody waits anyway: by the thread that looks at them while the prompt
waits, and at Enter for a line that would be an error otherwise. No key waits for it.
"""

from __future__ import annotations

import keyword
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cmd2 import Cmd2ArgumentParser, Completions, RawDescriptionCmd2HelpFormatter, Statement
from cmd2.exceptions import Cmd2ArgparseError

from pyrokernel.client.commands import one_for
from pyrokernel.client.group import Group
from pyrokernel.client.kernel import Kernel
from pyrokernel.client.listing import ask_all
from pyrokernel.client.parcels import pack_arguments
from pyrokernel.controls import plain
from pyrokernel.errors import PyrokernelError
from pyrokernel.messages import CommandInfo
from pyrokernel.shell.parser import SourceReader, Takes
from pyrokernel.shell.paths import offer_paths
from pyrokernel.shell.source import completeness
from pyrokernel.shell.variables import is_variable
from pyrokernel.wording import add_arguments, arguments_from, written

if TYPE_CHECKING:
    from pyrokernel.shell.app import Shell

SUBJECT = "Commands of the kernels"

_PATIENCE_SECONDS = 0.5
"""How long a person waits at Enter for what the kernels have."""

_SCRIPT_SECONDS = 3.0
"""How long a script does: without an answer its line would be an error."""

_MAX_KNOWN = 4096
_CALLED = re.compile(r"\s*(:|%?)([A-Za-z_]\w*)(\s.*)?", re.DOTALL)


class RemoteCommand:
    """A command of kernels, as cmd2 calls it: what stands for a `do_` method.

    Args:
        info: What the kernels say of it.
        run: Takes its name, its words, and how it was typed.

    Attributes:
        DEFAULT_CATEGORY: Under which heading `help` lists it.
        takes: What follows it.
    """

    DEFAULT_CATEGORY = SUBJECT
    takes = Takes.WORDS

    def __init__(self, info: CommandInfo, run: Callable[[str, list[str], str], bool]) -> None:
        self.info = info
        self.__name__ = f"do_{info.name}"
        about = plain(info.summary).rstrip(".").partition(": ")[0]
        self.__doc__ = f"{about or 'Run it'} ({plain(info.owner)})."
        self.__self__ = self  # where `help` looks for the category of a method
        self._run = run
        self._parser: Cmd2ArgumentParser | None = None

    def __call__(self, statement: Statement) -> None:
        """Run it; cmd2 calls this."""
        self._run(self.info.name, statement.argv[1:], statement.raw.strip())

    def parser(self, paths: Callable[[str], Sequence[str]]) -> Cmd2ArgumentParser:
        """Return what reads its words, made when it is first needed.

        Args:
            paths: Completes a path on the machines of the kernels.
        """
        if self._parser is None:
            self._parser = parser_of(self.info, paths)
        return self._parser


def parser_of(info: CommandInfo, paths: Callable[[str], Sequence[str]]) -> Cmd2ArgumentParser:
    """Make the parser of a command of what kernels say of it; its help has signature, docstring and owner."""
    signature = f"{info.name}{info.signature}"
    doc = f"{signature}\n\n{info.doc}" if info.doc else signature
    parser = Cmd2ArgumentParser(
        prog=info.name,
        description=plain(doc),
        epilog=plain(f"A command of the kernels, of {info.owner}; in Python: {info.name}(...)"),
        formatter_class=RawDescriptionCmd2HelpFormatter,
        conflict_handler="resolve",  # a parameter may be called `help`
    )
    add_arguments(parser, [{**one, "help": plain(str(one["help"]))} for one in info.parameters])

    def complete(_: Any, text: str, line: str, begin: int, end: int) -> Completions:
        return Completions.from_values(paths(text))

    kinds = {f"argument_{one['name']}": str(one["type"]) for one in info.parameters}
    for action in parser._actions:
        if kinds.get(action.dest, "").endswith("path") and not action.choices:
            action.set_completer(complete)  # type: ignore[attr-defined]  # cmd2 adds it to actions
    return parser


class Remote:
    """What is known of the commands of kernels, and those of the current group among the words of a shell.

    The shell's own commands and Python's keywords come first: a command of that name is called as in Python.

    Args:
        shell: Whose.

    Attributes:
        words: The commands of kernels that are words of the shell now.
    """

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self.words: dict[str, RemoteCommand] = {}
        self._known: dict[str, tuple[int | None, Mapping[str, CommandInfo]]] = {}
        """By instance of a kernel: the revision of its table, if that was asked, and what it has."""
        self._changes = 0
        self._applied: object = None
        self._asked = ""

    def follow(self, group: Group, revisions: Mapping[str, int]) -> None:
        """Ask the kernels whose commands have changed; the thread that looks at kernels calls this.

        Args:
            group: The kernels.
            revisions: By instance, how often their tables have changed.
        """
        known = self._known
        stale = [
            kernel
            for kernel in group
            if kernel.instance in revisions
            and (kernel.instance not in known or known[kernel.instance][0] != revisions[kernel.instance])
        ]
        self._ask(group, stale, revisions, _PATIENCE_SECONDS)

    def learn(self, group: Group, *, afresh: bool = False) -> None:
        """Ask the kernels of a group that were never asked, or all of them."""
        asked = [kernel for kernel in group if afresh or kernel.instance not in self._known]
        self._ask(group, asked, {}, _PATIENCE_SECONDS if self._shell.at_prompt else _SCRIPT_SECONDS)
        self.settle()

    def learn_for(self, line: str) -> None:
        """Ask, if a line could be a command of kernels that is not known yet.

        Of a word alone, and of one with options, which may be Python, only those that nobody asked before.
        """
        match = _CALLED.fullmatch(line)
        if match is None or match[2] in self._shell.reader.commands or not _may_be_word(match[2]):
            return
        rest = (match[3] or "").strip()
        if (not rest or rest.startswith("-")) and not match[1]:
            self.learn(self._shell.target.group)
        elif line != self._asked and (match[1] or ("\n" not in line and completeness(line) == "invalid")):
            self._asked = line  # asked several times for the same line: where it ends, and what it is
            self.learn(self._shell.target.group, afresh=True)

    def _ask(self, group: Group, asked: Sequence[Kernel], revisions: Mapping[str, int], seconds: float) -> None:
        if not asked:
            return
        found, _, _ = ask_all(Group(group.mesh, asked), "commands", timeout=seconds)
        for kernel in asked:
            if kernel.name in found:
                infos = [CommandInfo.from_wire(one) for one in found[kernel.name]]
                self._known[kernel.instance] = (revisions.get(kernel.instance), {info.name: info for info in infos})
                self._changes += 1
        while len(self._known) > _MAX_KNOWN:
            del self._known[next(iter(self._known))]

    def of(self, group: Group) -> dict[str, dict[str, CommandInfo]]:
        """Return what is known of the commands of a group: by name, and by kernel that has it."""
        found: dict[str, dict[str, CommandInfo]] = {}
        for kernel, infos in self.by_kernel(group).items():
            for info in infos:
                found.setdefault(info.name, {})[kernel] = info
        return dict(sorted(found.items()))

    def by_kernel(self, group: Group) -> dict[str, list[CommandInfo]]:
        """Return what is known of the commands of a group, by kernel; one that never answered is not among them."""
        known = self._known
        return {kernel.name: list(known[kernel.instance][1].values()) for kernel in group if kernel.instance in known}

    def settle(self) -> None:
        """Make the words of the shell those that the current group has, as far as it is known; asks nobody."""
        group = self._shell.target.group
        state = (self._changes, [kernel.instance for kernel in group])
        if state == self._applied:
            return
        self._applied = state
        infos = {name: next(iter(holders.values())) for name, holders in self.of(group).items()}
        reader, before = self._shell.reader, self.words
        own = {name: what for name, what in reader.commands.items() if name not in before}
        wanted = {name: info for name, info in infos.items() if name not in own and _may_be_word(name)}
        after = {}
        for name, info in wanted.items():
            held = before.get(name)
            after[name] = held if held is not None and held.info == info else RemoteCommand(info, self._run_here)
        if after == before:
            return
        self._shell.replace_remote(before.keys() - after.keys(), after, self._complete)
        self.words = after
        reader.commands = own | dict.fromkeys(after, Takes.WORDS)

    def help_of(self, name: str) -> str:
        """Return signature, docstring and usage of a command of kernels; "" when it is none."""
        command = self.words.get(name)
        return command.parser(self._paths).format_help() if command else ""

    def command_of(self, group: Group, source: str) -> str:
        """Return the command that a line for a group calls, "" when it is Python or one of the shell's own."""
        match = _CALLED.fullmatch(source)
        if match is None or not _may_be_word(match[2]) or completeness(source) == "incomplete":
            return ""
        name = match[2]
        if match[1] or completeness(source) == "invalid" or not (match[3] or "").strip():
            self.learn(group, afresh=name not in self.of(group))
        own = self._shell.reader.commands.keys() - self.words.keys()
        if name not in self.of(group) or name in own:
            return ""
        reader = SourceReader({name: Takes.WORDS})
        if not match[1] and completeness(source) != "invalid" and is_variable(name, group):
            reader.variables.add(name)
        return reader.command_of(source)

    def run_on(self, group: Group, source: str) -> bool:
        """Run a line that is a command of the kernels of a group; say whether it succeeded everywhere."""
        try:
            word, *words = shlex.split(source)
        except ValueError as error:
            self._shell.fail(f"{source}: {error}")
            return False
        name = word.lstrip(":%")
        return self._run(group, name, words, source, self._shell.run_cell)

    def _run_here(self, name: str, words: list[str], shown: str) -> bool:
        """Run a command on the current group."""

        def run(_: Group, source: str, **options: Any) -> bool:
            return self._shell.run_on_target(source, **options)

        return self._run(self._shell.target.anew(), name, words, shown, run)

    def _run(self, group: Group, name: str, words: list[str], shown: str, run: Callable[..., bool]) -> bool:
        """Read the words of a command and run it as a cell, unless some of the kernels have not that one."""
        try:
            command = self._meant(group, name)
        except PyrokernelError as error:
            self._shell.fail(f"nothing ran: {error}")
            return False
        behind = words[-1:] == ["&"]
        try:
            parsed = command.parser(self._paths).parse_args(words[:-1] if behind else words)
        except SystemExit as error:
            raise Cmd2ArgparseError from error
        explicit = shown.startswith((":", "%"))
        if not explicit and is_variable(name, group):  # kernels would call that instead
            self._shell.fail(
                f"nothing ran: `{name}` is a variable there, which comes before the command; `:{name}` is the command"
            )
            return False
        args, kwargs = arguments_from(parsed, command.info.parameters)
        source = written(name, args, kwargs)
        options = {"call": [f":{name}", pack_arguments(args, kwargs)], "shown": shown.removesuffix("&").rstrip()}
        ok = run(group, f"{source} &" if behind else source, **options)
        self._shell.last_result = ok
        return ok

    def _meant(self, group: Group, name: str) -> RemoteCommand:
        """Return the command of a group; of a kernel that does not answer, what it had before counts.

        Raises:
            CommandNotFoundError: None has it.
            SettingsError: Some lack it, or have another version.
        """
        self.learn(group)
        if len(self.of(group).get(name, {})) < len(group):
            self.learn(group, afresh=True)
        held = self.words.get(name)
        by_kernel = self.by_kernel(group)
        if held is not None and not by_kernel:
            return held
        info = one_for(name, by_kernel, f"`on {{}} {name} ...`")
        return held if held is not None and held.info == info else RemoteCommand(info, self._run_here)

    def _complete(self, name: str) -> Callable[[str, str, int, int], Completions]:
        """Return what completes the words of a command."""

        def complete(text: str, line: str, begin: int, end: int) -> Completions:
            command = self.words.get(name)
            if command is None:
                return Completions()
            parser = command.parser(self._paths)
            tokens, _ = self._shell.tokens_for_completion(line, begin, end)
            return parser.completer_class(parser, self._shell).complete(text, line, begin, end, tokens[1:])

        return complete

    def _paths(self, text: str) -> list[str]:
        return offer_paths(self._shell.target.group, text)


def _may_be_word(name: str) -> bool:
    """Whether a name is no word of Python's own, such as `import` or `match`."""
    return not (keyword.iskeyword(name) or keyword.issoftkeyword(name))
