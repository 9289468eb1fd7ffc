"""Sage in kernels of a private mesh. Runs in the test process, and starts others."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Iterator
from pathlib import Path

import pyrokernel as pk
import pytest
from waiting import wait_until

import pyrokernel_sage
from pyrokernel_sage import parts

HERE = Path(__file__).parent
FOLDER = Path(pyrokernel_sage.__file__).parent.parent

pytestmark = pytest.mark.slow


def has(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


needs_preparser = pytest.mark.skipif(not has("sage.repl"), reason="passagemath-repl is not installed")
needs_sage = pytest.mark.skipif(
    not (has("sage.all__sagemath_modules") and has("sage.all__sagemath_pari")),
    reason="the parts of Sage are not installed: pip install 'pyrokernel-sage[full]'",
)


@pytest.fixture(scope="module", params=["when used", "preloaded"])
def mesh(request: pytest.FixtureRequest) -> Iterator[pk.Mesh]:
    """Four Sage kernels and one that is none; Sage is imported by each, or by their template."""
    specs = [pk.KernelSpec(name=f"s{number}", tags=("sage",)) for number in range(4)]
    section = {"preload": request.param == "preloaded"}
    with pk.local([*specs, pk.KernelSpec(name="k0")], plugins_dir=str(FOLDER), plugins={"sage": section}) as found:
        yield found


@pytest.fixture
def kernel(mesh: pk.Mesh) -> pk.Kernel:
    found: pk.Kernel = mesh["s0"]
    return found


@needs_preparser
def test_powers_are_powers_in_sage_kernels_only(mesh: pk.Mesh) -> None:
    assert mesh["s0"].execute("2^10").text == "1024"
    assert mesh["k0"].execute("2^10").text == "8"
    assert mesh["k0"].execute("'Integer' in globals()").text == "False"


@needs_preparser
def test_an_error_shows_the_line_that_was_typed(kernel: pk.Kernel) -> None:
    reply = kernel.execute("x = 2^3\n\nraise ValueError(x^2)", check=False)
    assert reply.ename == "ValueError"
    assert "line 3" in reply.traceback
    assert "raise ValueError(x^2)" in reply.traceback


@needs_preparser
def test_text_that_is_neither_shows_pythons_error(kernel: pk.Kernel) -> None:
    reply = kernel.execute("print 2^3", check=False)
    assert reply.ename == "SyntaxError"
    assert "print 2^3" in reply.traceback
    assert "Integer" not in reply.traceback


@needs_preparser
def test_names_of_sage_are_not_variables_of_the_user(kernel: pk.Kernel) -> None:
    kernel.execute("mine = 3")
    names = [each["name"] for each in kernel.variables()]
    assert "mine" in names
    assert "Integer" not in names


@needs_sage
@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("3/4", "3/4"),
        ("1/3 + 1/6", "1/2"),
        ("R.<x> = QQ[]; (x^2 - 1).factor()", "(x - 1) * (x + 1)"),
        ("matrix(QQ, 2, 2, [1, 2, 3, 4])", "[1 2]\n[3 4]"),
        ("factor(2^64 + 1)", "274177 * 67280421310721"),
        ("RealField(100)(2).sqrt()", "1.4142135623730950488016887242"),
        ("[1..5]", "[1, 2, 3, 4, 5]"),
        ("K.<a> = GF(9); a^3", "2*a + 1"),
        ("type(TimeSeries(3)).__name__", "'TimeSeries'"),
    ],
)
def test_cells_are_sage(kernel: pk.Kernel, source: str, text: str) -> None:
    assert kernel.execute(source).text == text


@needs_sage
def test_objects_survive_underscore_and_the_way_to_the_client(kernel: pk.Kernel) -> None:
    kernel.execute("matrix(QQ, 2, 2, [1, 2, 3, 4])")
    assert kernel.execute("_.det()").text == "-2"
    kernel.execute("R.<x> = QQ[]\np = x^2 - 1/2")
    assert repr(kernel.pull("p")) == "x^2 - 1/2"


@needs_sage
@pytest.mark.parametrize(
    ("made", "used", "text"),
    [
        ("R.<x> = QQ[]; p = (x^2 - 1)/2", "p.factor()", "(1/2) * (x - 1) * (x + 1)"),
        ("p = GF(9, 'z').gen()", "p^3", "2*z + 1"),
        ("p = factor(2^64 + 1)", "p", "274177 * 67280421310721"),
        ("p = TimeSeries([1, 2, 3])", "p.sum()", "6.0"),
    ],
)
def test_values_travel_from_kernel_to_kernel(mesh: pk.Mesh, made: str, used: str, text: str) -> None:
    parts.names()  # some modules of Sage cannot be the first that is imported, which a value does not know
    mesh["s1"].execute("1")  # Sage is imported by cells, never by a value that arrives
    mesh["s0"].execute(made)
    mesh["s1"].push(p=mesh["s0"].pull("p"))
    assert mesh["s1"].execute(used).text == text


@needs_sage
def test_the_file_of_the_notes_runs_unchanged(mesh: pk.Mesh) -> None:
    group = mesh[["s0", "s1", "s2", "s3"]]
    group.ship(str(HERE.parent / "examples" / "super_func.py"))
    found = group.call("mySuperFunc", 100_000, distribution="normal")
    assert [sum(counts) for counts, _ in found.values()] == [100_000] * 4
    assert len({tuple(counts) for counts, _ in found.values()}) == 4, "kernels draw the same numbers"
    calls = [((1_000,), {"distribution": "uniform", "bins": bins}) for bins in range(1, 101)]
    histograms = group.map_calls("mySuperFunc", calls).results()
    assert [len(counts) for counts, _ in histograms] == list(range(1, 101))


@needs_sage
@pytest.mark.parametrize(
    "source",
    [
        "x = 0\nwhile x < 10^9: x += 1",
        "import time; time.sleep(30r)",
        "factor(next_prime(10^45) * next_prime(10^46))",
    ],
)
def test_an_interrupt_ends_a_cell_and_no_other(kernel: pk.Kernel, source: str) -> None:
    replies: list[pk.Reply] = []
    thread = threading.Thread(target=lambda: replies.append(kernel.execute(source, check=False)))
    thread.start()
    wait_until(lambda: "busy" in repr(kernel))
    while thread.is_alive():
        kernel.interrupt()
        thread.join(1.0)
    assert replies[0].ename == "KeyboardInterrupt"
    assert kernel.execute("[factor(n) for n in [2^60..2^60+9]]; matrix(ZZ, 2, 2, [1, 2, 3, 4]).det()").text == "-2"
