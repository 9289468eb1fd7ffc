"""`pyrokernel ship` and `unship`: what they show, how they end, and every save until Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_until

from pyrokernel.cli import ExitCode

Served = Any  # tests/process/conftest.py

SQUARE = "def remote_square(x: int) -> int:\n    return x * x\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "analysis.py"
    path.write_text(SQUARE)
    return path


def shipped(served: Served) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = json.loads(served.cli("ship", "--json").stdout)
    return found


def test_what_became_of_a_file_is_said_once_for_kernels_alike(served: Served, file: Path) -> None:
    first = served.cli("ship", str(file)).stdout
    (digest,) = {one["digest"][:8] for ones in shipped(served).values() for one in ones}
    assert first == f"k0-k1: analysis.py {digest} shipped; commands: square\n"
    assert served.cli("ship", str(file)).stdout == f"k0-k1: analysis.py {digest} unchanged\n"
    assert sorted(served.cli("call", "square", "7").stdout.splitlines()) == ["k0: 49", "k1: 49"]

    file.write_text(SQUARE + "limit = 3\n")
    replaced = served.cli("ship", "-k", "k1", str(file)).stdout
    new = shipped(served)["k1"][0]["digest"][:8]
    assert replaced == f"k1: analysis.py replaced {digest} -> {new}; commands: square\n"

    listed = served.cli("ship")
    header, *rows = listed.stdout.splitlines()
    assert header.split() == ["MODULE", "VERSION", "KERNELS", "COMMANDS", "BY", "WHEN"]
    assert sorted(row.split()[:4] for row in rows) == sorted(
        [["analysis.py", digest, "k0", "square"], ["analysis.py", new, "k1", "square"]]
    )
    assert f"analysis.py differs (k0: {digest}; k1: {new})" in listed.stderr


def test_what_a_module_prints_when_it_is_run_is_shown(served: Served, file: Path) -> None:
    file.write_text("print('calibrating')\n" + SQUARE)
    said = served.cli("ship", str(file)).stdout.splitlines()
    assert said[0] == "k0-k1: calibrating"
    assert "analysis.py" in said[1]


def test_a_module_that_imports_what_was_replaced_is_said_to_run_again(served: Served, tmp_path: Path) -> None:
    (tmp_path / "lower.py").write_text("def low():\n    return 1\n")
    (tmp_path / "upper.py").write_text("from lower import low\n")
    both = [str(tmp_path / "lower.py"), str(tmp_path / "upper.py")]
    served.cli("ship", *both)
    (tmp_path / "lower.py").write_text("def low():\n    return 2\n")
    said = served.cli("ship", *both).stdout.splitlines()
    assert said[0].startswith("k0-k1: lower.py replaced ")
    assert said[1].endswith(" run again, because what it imports was replaced")
    assert served.cli("run", "-k", "k0", "-c", "import upper; upper.low()").stdout == "2\n"


def test_source_comes_from_standard_input_and_reaches_kernels_that_start_later(served: Served) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pyrokernel", "ship", "--name", "pasted_in", "-"],
        env=served.environ, input="x = 1", capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    assert done.stdout.startswith("k0-k1: pasted_in.py ")
    served.cli("serve", "--detach", "--name", "late")
    assert served.cli("run", "-k", "late", "-c", "import pasted_in; pasted_in.x").stdout == "1\n"


def test_what_was_shipped_is_taken_away(served: Served, file: Path) -> None:
    nothing = served.cli("ship")
    assert (nothing.stdout, nothing.returncode) == ("", ExitCode.OK)
    assert "nothing was shipped yet" in nothing.stderr
    served.cli("ship", str(file))
    assert served.cli("unship", str(file)).stdout == "k0-k1: analysis and its commands are gone\n"
    again = served.cli("unship", "analysis", check=False)
    assert again.returncode == ExitCode.NO_KERNEL
    assert "no kernel has analysis" in again.stderr


@pytest.mark.parametrize(
    ("source", "code", "said"),
    [
        ("def f(:\n", ExitCode.USAGE, 'analysis.py", line 1'),
        ("def f():\n    1 / 0\nf()\n", ExitCode.CODE_RAISED, "ZeroDivisionError: division by zero"),
        ("import no_such_library\n", ExitCode.CODE_RAISED, "has no module 'no_such_library'"),
    ],
)
def test_kernels_keep_what_they_had_and_the_code_says_whose_fault_it_was(
    served: Served, file: Path, source: str, code: ExitCode, said: str
) -> None:
    served.cli("ship", str(file))
    file.write_text(source)
    failed = served.cli("ship", str(file), check=False)
    assert (failed.returncode, failed.stdout) == (code, "")
    assert said in failed.stderr
    assert "k0: 9" in served.cli("call", "square", "3").stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere.py"], "cannot read nowhere.py"),
        (["--watch", "nowhere.py"], "there is no file nowhere.py"),
        (["--watch"], "--watch watches files"),
        (["--watch", "-"], "--watch watches files"),
        (["--name", "x", "a.py"], "--name names what comes from standard input"),
    ],
)
def test_words_that_do_not_go_together(served: Served, words: list[str], said: str) -> None:
    done = served.cli("ship", *words, check=False)
    assert done.returncode == ExitCode.USAGE
    assert said in done.stderr


# Every save


@contextmanager
def watching(served: Served, *paths: Path) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Run `ship --watch`, and collect the lines it shows."""
    lines: list[str] = []
    with subprocess.Popen(
        [sys.executable, "-m", "pyrokernel", "ship", "--watch", *map(str, paths)],
        env=served.environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        assert process.stdout
        reader = threading.Thread(target=lines.extend, args=(process.stdout,))
        reader.start()
        try:
            yield process, lines
        finally:
            process.kill()
            reader.join()


def save(path: Path, source: str) -> None:
    """Save as editors do: write beside it, and rename."""
    fresh = path.with_suffix(".new")
    fresh.write_text(source)
    os.replace(fresh, path)


def test_every_save_is_shipped_until_ctrl_c(served: Served, file: Path) -> None:
    with watching(served, file) as (process, lines):

        def says(text: str) -> None:
            wait_until(lambda: any(text in line for line in lines), 20)
            lines.clear()

        says("watching 1 path")
        save(file, "def remote_square(x: int) -> int:\n    return -x\n")
        says("k0-k1: analysis.py replaced ")
        assert "k0: -3" in served.cli("call", "square", "3").stdout

        save(file, "def f(:\n")
        says("SyntaxError")
        save(file, "1 / 0\n")
        says("ZeroDivisionError")
        file.unlink()
        served.cli("restart", "k1")  # the kernel gets it from its host, and the watch goes on with the new instance
        assert "k1: -3" in served.cli("call", "square", "3").stdout
        file.write_text(SQUARE)
        says("k0-k1: analysis.py replaced ")
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == ExitCode.OK
    assert "k1: 9" in served.cli("call", "square", "3").stdout
