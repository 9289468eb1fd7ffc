"""What to type here for what people type elsewhere, one line each. Pure. Runs in the shell process."""

from __future__ import annotations

import difflib
import keyword
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

_NO_EXTENSIONS = (
    "extensions change IPython, which does not run here; plain Python of theirs can be imported: `import NAME`"
)
_RELOAD = "kernels do not reload modules by themselves: `import importlib; importlib.reload(MODULE)`, or `restart`"
_LOGGED = "nothing to switch on: kernels keep all that ran and was printed; `logs` shows it, `logs > FILE` saves it"
_INSPECT = "`NAME?` shows signature and docstring, `NAME??` the source"
_PASTE = "paste it at the prompt: a block goes in whole, and runs at Enter"
_BACK = "`cd DIRECTORY` changes the directory of the kernels, `cd -` goes back"
_PROFILE = "`import cProfile; cProfile.run('f(x)')` profiles in the kernels; `time` and `timeit` measure"
_HELP = "`help` lists all commands"
_ALL = (
    "Python goes to all kernels of the group as it is: `use KERNELS` chooses them, `on KERNELS SOURCE` asks some once"
)
_SHOWN = "`set` lists what can be changed in this shell"
_PROGRAM = "`!COMMAND` runs a program on the kernels; `%%bash`, and lines below it, a script of the system's shell"
_NO_PAGE = "there is no page to show it on: print text, or write a file with `%%writefile NAME`"
_INTERPRETERS = ("cmd", "perl", "pypy", "python2", "ruby", "R", "cython")
_FIGURES = "nothing to choose: kernels have no window; what `plt.show()` shows is saved, and its path is printed"

ELSEWHERE = {
    **dict.fromkeys(("load_ext", "reload_ext", "unload_ext", "memit", "mprun"), _NO_EXTENSIONS),
    **dict.fromkeys(("autoreload", "aimport"), _RELOAD),
    **dict.fromkeys(("logstart", "logstop", "logon", "logoff", "logstate"), _LOGGED),
    **dict.fromkeys(("pinfo", "pinfo2", "pdef", "pdoc", "psource", "pfile", "psearch", "page"), _INSPECT),
    **dict.fromkeys(("paste", "cpaste"), _PASTE),
    **dict.fromkeys(("pushd", "popd", "dirs", "dhist", "bookmark"), _BACK),
    **dict.fromkeys(("prun", "lprun"), _PROFILE),
    **dict.fromkeys(("lsmagic", "magic", "quickref", "automagic"), _HELP),
    **dict.fromkeys(("px", "autopx", "pxlocal", "pxconfig", "pxresult"), _ALL),
    **dict.fromkeys(("config", "alias_magic"), _SHOWN),
    **dict.fromkeys(("matplotlib", "pylab", "gui"), _FIGURES),
    **dict.fromkeys(
        ("system", "sx", "sc"), "`!COMMAND` runs a program on the kernels; `NAME = !COMMAND` keeps its lines"
    ),
    **dict.fromkeys(("bash", "script", *_INTERPRETERS), _PROGRAM),
    **dict.fromkeys(("html", "HTML", "javascript", "js", "latex", "markdown", "svg", "SVG"), _NO_PAGE),
    **dict.fromkeys(
        ("load", "loadpy"), "`run FILE` runs a Python file of this machine; `edit N` opens line N of `history`"
    ),
    "pycat": "`!cat FILE` shows a file of the kernels' machines",
    "notebook": "`cells` lists what ran, `cells N` shows one; `logs > FILE` saves what ran and was printed",
    "rerun": "`edit N` opens line N of `history`, and runs it again; `cells N` shows what cell N said",
    **dict.fromkeys(("writefile", "file"), "`%%writefile NAME`, and lines below it, writes a file on the kernels"),
    **dict.fromkeys(("xdel", "reset_selective"), "`del NAME` removes a variable, `restart` all of them"),
    **dict.fromkeys(("recall", "rep"), "arrow up and Ctrl-R bring lines back; `cells` lists what ran"),
    **dict.fromkeys(("hist", "history"), "arrow up and Ctrl-R bring lines back; `cells` lists what ran"),
    **dict.fromkeys(
        ("pdb", "debug", "tb"), "`debug` looks into the last failure; `breakpoint()` stops where it stands"
    ),
    **dict.fromkeys(("edit", "ed"), "`edit` opens the last block in your editor"),
    "capture": "kernels keep what was printed (`logs`); `contextlib.redirect_stdout(io.StringIO())` puts it elsewhere",
    "colors": "`NO_COLOR` in the environment takes colours away",
    "pprint": "long lists and dicts are laid out over lines already; `set result_lines N` says how many are shown",
    "precision": "`f'{x:.3f}'` shows fewer digits; `numpy.set_printoptions(precision=3)` those of arrays",
    "xmode": "tracebacks are Python's own; `debug` shows the variables of the last failure",
    "autoawait": "nothing to switch on: cells may `await` at their top level",
    "macro": "define a function: it stays in the kernels",
    "reset": "`restart` gives fresh kernels of the same names; `del NAME` removes one variable",
    "save": "`logs > FILE` saves what ran and was printed; `cells` lists what ran",
    "store": "kernels keep their variables when you leave; `gather` and `pull` bring them here, to be saved",
    "who_ls": "`who` lists the variables",
}
"""By what people type, after "%" or without, what to type here."""

RUN_OPTIONS = {
    "-d": "`breakpoint()` in the file stops there; `debug` looks into the last failure",
    "-m": "`import runpy; _ = runpy.run_module('NAME', run_name='__main__')` runs a module in the kernels",
    "-p": _PROFILE,
}
"""By option of IPython's `%run` that ours lacks, what to type here."""

ASKING = (
    "NAME?        what it is: signature, type, value, docstring; also ?NAME",
    "NAME??       its source",
    "np.*load*?   the names that match",
    "!COMMAND     a program, on the kernels",
    "help         all commands of this shell",
    "tour         the shell, learned by doing",
)
"""What `?` alone says."""

_BY_NUMBER = (
    (
        re.compile(r"Out|_oh|_\d+"),
        "results are not kept by number: `_`, `__`, `___` are the last three; `cells` shows those before",
    ),
    (
        re.compile(r"In|_ih|_i\d+"),
        "`history 3-5` shows lines typed before, `edit 3` opens one; `_i`, `_ii`, `_iii` are the last three",
    ),
    (re.compile("get_ipython"), "kernels are plain Python, without IPython: `%NAME` and `!COMMAND` begin a line"),
    (re.compile("display"), "`print(x)`, or `x` on the last line, shows it; what `plt.show()` shows is saved"),
)
"""Names that IPython sets, and what to type here."""

_PROGRAMS = (
    "apt awk brew cat chmod clear conda cp curl cut date docker du echo emacs free gcc git grep gzip head"
    " hostname htop kill less ln ls make man mkdir mv nano nvcc nvidia-smi ping pip3 poetry python python3 rm rmdir"
    " rsync salloc sbatch scp sed sinfo sort squeue srun ssh sudo tail tar top touch uname unzip uv vi vim wc wget"
    " which whoami zip"
)
PROGRAMS = frozenset(_PROGRAMS.split())
"""Words that are a program far more often than a variable."""

_SIGNED = re.compile(r"\s*(%%|%|:|)(\S*)")
_INSIDE = "`!` and `%` stand at the beginning of a line of their own, not inside a block"
_FIRST_WORD = re.compile(r"([A-Za-z_][\w-]*)(\s|\Z)")
_NEAR = 0.75
_VALUE = re.compile(r"\s*(\w+)\s*=\s*%{1,2}(\w+)(.*)")
_PROGRAM_MAGICS = ("sx", "system", "sc")
_UNDEFINED = re.compile(r"name '(\w+)' is not defined")


def for_word(word: str) -> str:
    """Return what to type for a word of elsewhere; "" when it is none."""
    return ELSEWHERE.get(word) or (f"`!{word}` runs a program on the kernels" if word in PROGRAMS else "")


def for_unknown(text: str, commands: Collection[str]) -> str:
    """Say that there is no such command, and what there is.

    Args:
        text: As typed, with its `%` or `:`; below `%%`, lines that do not run either.
        commands: Those there are.
    """
    sign, word = _SIGNED.match(text).groups()  # type: ignore[union-attr]  # it matches any text
    nothing = "nothing ran: " if sign == "%%" else ""
    if sign == "%%" and word in commands:
        return f"nothing ran: `{word}` takes no lines below it; `{word}` alone is a line"
    near = difflib.get_close_matches(word, commands, 1)
    there_is = f"did you mean `{near[0]}`? " if near else ""
    return nothing + (for_word(word) or f"there is no command {word!r}; {there_is}`help` lists them all")


def for_failure(source: str, outcomes: Iterable[Mapping[str, Any]], commands: Collection[str] = ()) -> str:
    """Return a hint for what failed because it is not Python; "" when there is none.

    Args:
        source: What was typed.
        outcomes: What came of it on each kernel: ename and evalue.
        commands: Those there are, aliases too.
    """
    failure = next((outcome for outcome in outcomes if outcome.get("ename")), {})
    undefined = _UNDEFINED.search(str(failure.get("evalue"))) if failure.get("ename") == "NameError" else None
    for pattern, hint in _BY_NUMBER:
        if undefined and pattern.fullmatch(undefined[1]):
            return hint
    first, *others = source.strip().split("\n")
    value = _VALUE.match(first) if failure.get("ename") == "SyntaxError" else None
    if value:
        return _for_value(*value.groups())
    if undefined and undefined[1] in commands and not for_word(undefined[1]):
        return _for_call(undefined[1], first)
    if others:
        inner = any(line.lstrip().startswith(("!", "%")) for line in others)
        return _INSIDE if inner and failure.get("ename") == "SyntaxError" else ""
    match = _FIRST_WORD.match(first)
    if match is None:
        return ""
    missing = undefined and undefined[1] == match[1].partition("-")[0]
    if not missing and failure.get("ename") != "SyntaxError":
        return ""
    return for_word(match[1]) or ("" if missing else _for_slip(match[1], commands))


def _for_slip(word: str, commands: Collection[str]) -> str:
    """Say which command is meant by the first word of what is no Python; "" for a word that is far from all."""
    near = [] if word in commands or keyword.iskeyword(word) else difflib.get_close_matches(word, commands, 1, _NEAR)
    return f"did you mean `{near[0]}`?" if near else ""


def _for_call(word: str, line: str) -> str:
    """Say how a command or alias is used that stands in Python, perhaps as a call."""
    call = re.fullmatch(rf"\s*{word}\s*\(([^()]*)\)\s*", line)
    example = f"{word} {call[1]}".rstrip() if call else f"{word} ..."
    return f"`{word}` is the beginning of a line of the shell, and no function: `{example}`"


def _for_value(name: str, word: str, rest: str) -> str:
    """Say how to keep what a command of IPython returns, for `NAME = %WORD REST`."""
    if word in ("time", "timeit"):
        return f"`{word}` prints what it measures; `import timeit; {name} = timeit.timeit(...)` keeps it"
    program = rest.strip() if word in _PROGRAM_MAGICS else word if word in (*PROGRAMS, "pwd") else ""
    begin = "" if word in _PROGRAM_MAGICS else "`%` begins a line, and gives no value; "
    return f"{begin}`{name} = !{program or 'COMMAND'}` keeps the lines that a program prints"
