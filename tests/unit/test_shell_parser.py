"""Which lines are commands, which are Python, and when Enter runs them."""

from __future__ import annotations

import pytest

from pyrokernel.shell.parser import (
    PYTHON,
    UNKNOWN,
    Parser,
    Piece,
    SourceReader,
    Takes,
    block_of,
)
from pyrokernel.shell.source import bound_names, completeness, dedented, in_background, margin_below, without_prompts

COMMANDS = {
    **dict.fromkeys(("help", "logs", "ps", "quit", "restart", "set", "shared", "use"), Takes.WORDS),
    "on": Takes.WORD_AND_PYTHON,
    "time": Takes.PYTHON,
    "sh": Takes.CELL,
    "inspect": Takes.TEXT,
}


@pytest.fixture
def reader() -> SourceReader:
    return SourceReader(COMMANDS)


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("ps", "ps"),
        ("  ps", "ps"),
        ("ps -a", "ps"),
        ("logs k0 -n 5", "logs"),
        ("use gpu-*", "use"),
        ("use *", "use"),
        ("use k0,k1", "use"),
        ("use tag:big", "use"),
        ("ps > file", "ps"),
        ("ps | grep k0", "ps"),
        ("set editor vi", "set"),
        (":ps", "ps"),
        ("exit()", "quit"),
        ("quit( 3 );", "quit"),
        ("on k0 x = 1", "on"),
    ],
)
def test_a_line_whose_first_word_is_a_command_is_one(reader: SourceReader, line: str, command: str) -> None:
    assert reader.command_of(line) == command


@pytest.mark.parametrize(
    "line",
    [
        "set(x)", "ps = 3", "ps: int = 3", "ps += 1", "ps == 3", "ps.x", "ps - a", "ps, x = 1, 2", "ps in x",
        "ps and x", "ps is None", "ps >= 3", "ps[0]", "psst", "x ps", "help(x)", "@ps", "# ps", "'ps'", "1", "",
    ],
)  # fmt: skip
def test_python_about_a_name_is_python(reader: SourceReader, line: str) -> None:
    assert reader.command_of(line) == ""


@pytest.mark.parametrize(
    "line",
    [
        "shared", "shared cal/*", "shared *", "shared x", "shared -s project", "shared -n 5 cal/*", "shared get k",
        "shared get 'two words'", "shared history k", "shared undo k", "shared diff k 3 7", "shared rm a b",
        "shared locks", "shared watch", "shared watch cal/", "shared spaces", "shared backup", "shared > keys.txt",
        "shared | grep cal", ":shared", "%shared get k", "shared if x", "shared get x[0]",
    ],
)  # fmt: skip
def test_words_after_shared_are_a_command(reader: SourceReader, line: str) -> None:
    assert reader.command_of(line) == "shared"


@pytest.mark.parametrize(
    "line",
    [
        'shared.m["k"]', 'shared.m["k"] = 1', "shared.m['n'] += 1", 'shared["project"].m', "shared.get('k')",
        "shared = 3", "shared: int = 3", "shared += 1", "shared == other", "shared is None", "shared in spaces",
        "shared, m = 1, 2", "shared [0]", "shared .m", "shared(x)", "shared - 1", "shared and x", "del shared",
        "with shared.lock('l') as token: pass", "for change in shared.watch(): print(change)", "shared; 1",
        "shared if x else y",
    ],
)  # fmt: skip
def test_python_about_shared_goes_to_the_kernels(reader: SourceReader, line: str) -> None:
    assert reader.command_of(line) == ""


def test_a_variable_called_shared_takes_the_bare_word_and_leaves_the_rest(reader: SourceReader) -> None:
    reader.variables.add("shared")
    assert reader.command_of("shared") == ""
    assert reader.command_of(":shared") == "shared"
    assert reader.command_of("shared history k") == "shared"


def test_a_variable_wins_over_the_command_of_its_name(reader: SourceReader) -> None:
    reader.variables.add("ps")
    assert reader.command_of("ps") == ""
    assert reader.command_of("ps -a") == ""
    assert reader.command_of(":ps") == "ps"
    assert reader.shadowed("ps") == "ps"
    assert reader.shadowed("psst") == ""


@pytest.mark.parametrize(
    ("source", "state"),
    [
        ("1 + 1", "complete"),
        ("x = 1; y = 2", "complete"),
        ("await f()", "complete"),
        ("if x: y", "complete"),
        ("def f():", "incomplete"),
        ("def f():\n    return 1", "open"),
        ("try:\n    x", "incomplete"),
        ("@decorator", "incomplete"),
        ("x = (", "incomplete"),
        ("x = '''a", "incomplete"),
        ("x = 1 +\\", "incomplete"),
        ("for", "invalid"),
        ("x = 'a", "invalid"),
        ("\0", "invalid"),
        ("    x = 1\n    y = 2", "complete"),
        ("(" * 500 + ")" * 500, "invalid"),
    ],
)
def test_completeness_is_what_a_console_would_say(source: str, state: str) -> None:
    assert completeness(source) == state


@pytest.mark.parametrize(
    "line", ["print('a;b|c>d')  # e", "x = a | b > c; y @ z", "@decorator\ndef f(): pass\n", "a\n\nb"]
)
def test_python_reaches_the_kernel_untouched(reader: SourceReader, line: str) -> None:
    statement = Parser(reader).parse(line)
    assert statement.command == PYTHON
    assert str(statement) == statement.raw == line
    assert statement.terminator


def test_a_block_ends_with_a_blank_line(reader: SourceReader) -> None:
    parser = Parser(reader)
    assert not parser.parse("def f():").terminator
    assert not parser.parse("def f():\n    return 1").terminator
    assert parser.parse("def f():\n    return 1\n").terminator
    assert parser.parse("def f():\n    return 1\n    ").terminator
    assert not parser.parse("on k0 def f():\n    return 1").terminator
    assert parser.parse("on k0 def f():\n    return 1\n").command == "on"


def test_comments_and_blank_lines_are_no_statement(reader: SourceReader) -> None:
    assert Parser(reader).parse("  # nothing").command == ""
    assert Parser(reader).parse("").command == ""


def test_a_command_keeps_its_redirection(reader: SourceReader) -> None:
    statement = Parser(reader).parse(":ps > file")
    assert (statement.command, statement.redirector, statement.redirect_to) == ("ps", ">", "file")


def test_in_a_script_everything_is_complete(reader: SourceReader) -> None:
    parser = Parser(reader)
    with parser.as_script():
        assert parser.parse("def f():\n    return 1").terminator
    assert not parser.parse("def f():\n    return 1").terminator


def test_a_script_is_cut_into_statements_and_commands(reader: SourceReader) -> None:
    script = (
        "x = 1\ndef f():\n    return 1\n\n    # c\nif x:\n  1\nelse:\n  2\nps\non k0 def g():\n  pass\ny = [\n1,\n]\n"
    )
    assert list(reader.pieces(script.split("\n"))) == [
        Piece("x = 1"),
        Piece("def f():\n    return 1\n\n    # c"),
        Piece("if x:\n  1\nelse:\n  2"),
        Piece("ps", "ps"),
        Piece("on k0 def g():\n  pass", "on"),
        Piece("y = [\n1,\n]"),
    ]


def test_a_simple_statement_is_not_held_until_the_next_line_arrives(reader: SourceReader) -> None:
    def lines() -> list[str]:
        pytest.fail("the second line was asked for")

    def typed():  # type: ignore[no-untyped-def]
        yield "x = 1\n"
        lines()

    assert next(iter(reader.pieces(typed()))) == Piece("x = 1")


def test_pasted_python_stays_together_and_is_cut_only_at_commands(reader: SourceReader) -> None:
    assert reader.split("x = 1\n\ny = 2") == [Piece("x = 1\n\ny = 2")]
    assert reader.split("x = 1\ny = 2\nps\nz = 3") == [Piece("x = 1\ny = 2"), Piece("ps", "ps"), Piece("z = 3")]
    assert reader.split("x = '''\nps\n'''") == [Piece("x = '''\nps\n'''")]


def test_lines_for_the_background_are_cells_of_their_own_as_in_a_script(reader: SourceReader) -> None:
    for text in ("0 &\n1 &", "x = 1\ny = 2\n0 &\n1 &\nz = 3", "def f():\n    return 1\n\nf() &\nf()", "0 &\nps\n1"):
        script = list(reader.pieces(text.split("\n")))
        pasted = reader.split(text)
        assert [piece.text for piece in pasted if piece.text.endswith("&")] == [
            piece.text for piece in script if piece.text.endswith("&")
        ]
        assert "\n".join(piece.text for piece in pasted) == "\n".join(piece.text for piece in script)
    for whole in ("x = (\n  a &\n  b)", "x = (\n  a &\n  b)\ny = = 2", "for i in x:\n    f(i) &", "x = 1\nf(x) &"):
        assert [piece.text for piece in reader.split(whole)] == [whole]


def test_questions_about_the_same_text_cost_one_look(reader: SourceReader, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    command_of = SourceReader.command_of

    def counted(self: SourceReader, line: str) -> str:
        looked.append(line)
        return command_of(self, line)

    monkeypatch.setattr(SourceReader, "command_of", counted)
    text = "\n".join(f"x{number} = {number}" for number in range(300)) + "\nps\nrepr(1)"
    for _ in range(27):
        assert reader.finished(text)
        assert len(reader.split(text)) == 3
    assert len(looked) < 5 * 300
    reader.variables.add("ps")
    assert len(reader.split(text)) == 1
    reader.commands = {}
    reader.variables.clear()
    assert len(reader.split("ps -a\n1")) == 1


def test_a_pasted_margin_is_removed() -> None:
    assert dedented("    x = 1\n    y = 2") == "x = 1\ny = 2"
    assert dedented("x = '''\n    a'''") == "x = '''\n    a'''"


def test_names_that_a_cell_binds_are_seen() -> None:
    assert bound_names("import os.path as p, sys\nps = 1\ndef use(): x = 1\nfor q in (): r = 1") == {
        "p", "sys", "ps", "use", "q", "r",
    }  # fmt: skip
    assert bound_names("for") == set()


# Habits of IPython


@pytest.mark.parametrize(
    ("line", "command", "rest"),
    [
        ("!ls -l | wc", "sh", "ls -l | wc"),
        ("obj?", "inspect", "obj"),
        ("obj??", "inspect", "--source obj"),
        ("?obj.attr", "inspect", "obj.attr"),
        ("d['a b'].c?", "inspect", "d['a b'].c"),
        ("%time f(x)", "time", "f(x)"),
        ("time f(x)", "time", "f(x)"),
        ("%nothing 3", UNKNOWN, "3"),
        ("?", "inspect", ""),
        ("np.*load*?", "inspect", "np.*load*"),
        ("*.py", PYTHON, "*.py"),
        ("%lsmagic", "help", ""),
        ("lsmagic", PYTHON, "lsmagic"),
        ("time.sleep(3)", PYTHON, "time.sleep(3)"),
        ("time = 3", PYTHON, "time = 3"),
        ("x = 7 % 3", PYTHON, "x = 7 % 3"),
    ],
)
def test_signs_of_ipython_are_commands(reader: SourceReader, line: str, command: str, rest: str) -> None:
    statement = Parser(reader).parse(line)
    assert (statement.command, str(statement)) == (command, rest)


def test_a_percent_sign_means_the_command_even_where_a_variable_has_its_name(reader: SourceReader) -> None:
    reader.variables = {"time"}
    assert reader.command_of("time (3)") == ""
    assert reader.command_of("%time (3)") == "time"


def test_two_percent_signs_take_the_block_that_follows(reader: SourceReader) -> None:
    assert not reader.finished("%%time")
    assert not reader.finished("%%time\nx = 1")
    assert reader.finished("%%time\nx = 1\n")
    statement = Parser(reader).parse("%%time\nx = 1\n")
    assert (statement.command, str(statement)) == ("time", "x = 1")


@pytest.mark.parametrize(
    ("source", "foreground"),
    [("f(x) &", "f(x)"), ("x & y", ""), ("x &", "x"), ("def f(): pass &", "def f(): pass"), ("x = '&'", ""), ("&", "")],
)
def test_a_trailing_ampersand_is_for_the_background(source: str, foreground: str) -> None:
    assert in_background(source) == foreground


@pytest.mark.parametrize(
    ("line", "hint"),
    [("ps", "ps"), ("ps -a", "ps"), ("ps.pid", ""), ("ps[0]", ""), ("ps = 4", ""), ("ps(); 3", ""), ("x", "")],
)
def test_a_shadowed_command_is_told_only_where_the_line_could_have_been_one(
    reader: SourceReader, line: str, hint: str
) -> None:
    reader.variables = {"ps"}
    assert reader.shadowed(line) == hint


@pytest.mark.parametrize(
    ("head", "command"),
    [
        ("%%bash", "sh"), ("%%sh", "sh"), ("%%!", "sh"), ("%%on k0", "on"), ("%%time", "time"),
        ("%%nothing x", UNKNOWN), ("%%ps", UNKNOWN), ("%%", UNKNOWN), ("%%3", UNKNOWN),
    ],
)  # fmt: skip
def test_what_stands_below_two_percent_signs_never_runs_as_python(
    reader: SourceReader, head: str, command: str
) -> None:
    body = "for i in 1 2; do\n  rm $i\ndone"
    assert not reader.finished(head)
    assert not reader.finished(f"{head}\nx = 1")
    assert reader.finished(f"{head}\nx = 1\n")
    pasted = f"{head}\n{body}\n\nuse k0\n"
    assert reader.split(pasted) == [Piece(pasted, command)]
    if command in ("sh", UNKNOWN):
        assert list(reader.pieces(f"{head}\n{body}\n\nx".split("\n"))) == [
            Piece(f"{head}\n{body}", command),
            Piece("x"),
        ]


def test_the_lines_below_two_percent_signs_stay_as_they_are(reader: SourceReader) -> None:
    assert block_of("%%bash  a b \n  one\n\n two\n\n") == ("bash", "a b", "  one\n\n two")
    assert block_of("%%!\nls") == ("!", "", "ls")
    assert str(Parser(reader).parse("%%time\n    x = 1\n    y = 2\n")) == "    x = 1\n    y = 2"


@pytest.mark.parametrize(
    ("pasted", "source"),
    [
        (">>> x = 1\n>>> x\n1\n", "x = 1\nx"),
        ("\n    >>> for i in x:\n    ...     i\n    ...\n    0\n", "for i in x:\n    i\n"),
        ("In [1]: x = 1\n\nIn [12]: def f():\n    ...:     return 1\n    ...: \n\nIn [13]: f()\nOut[13]: 1\n",
         "x = 1\ndef f():\n    return 1\n\nf()"),
        ("x = '''\n>>> 1\n'''", None), ("'''\nIn [1]: 1\n'''", None), ("...\nx", None), (">>>x", None),
    ],
)  # fmt: skip
def test_a_pasted_session_loses_its_prompts_and_what_was_printed(pasted: str, source: str | None) -> None:
    assert without_prompts(pasted) == (pasted if source is None else source)


@pytest.mark.parametrize(
    ("typed", "margin"),
    [
        ("if x:", "    "),
        ("if x:\n    y", "    "),
        ("if x:\n    for y in x:  ", "        "),
        ("    x = '''a", ""),
        ("def f():\n    '''a:", ""),
        ("def f():\n    '''a\n  b: c", ""),
        ("def f():\n    '''a\nb'''", "    "),
        ("def f():\n    '''a'''", "    "),
        ('x = f"""a', ""),
    ],
)
def test_a_string_of_several_lines_is_not_indented(typed: str, margin: str) -> None:
    assert margin_below(typed) == margin
