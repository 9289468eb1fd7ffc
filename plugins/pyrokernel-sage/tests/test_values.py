"""Sage objects in the form in which values travel. Runs in the test process, and starts others."""

from __future__ import annotations

import importlib.util
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

SAGE = importlib.util.find_spec("sage") is not None
FULL = SAGE and importlib.util.find_spec("sage.all__sagemath_modules") and importlib.util.find_spec("sage.libs.pari")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FULL, reason="the parts of Sage are not installed: pip install 'pyrokernel-sage[full]'"),
]

# In processes of their own: Sage takes signals, and changes the filters of warnings.
DUMP = """
import pickle, sys
from pyrokernel.wire.codec import Packed
from pyrokernel_sage import parts
from pyrokernel_sage.preparsing import preparsed
names = parts.names()
made = {}
for source in SOURCES:
    value = eval(preparsed(source, "<cell 1>") or source, names)
    packed = Packed.dump(value)
    back = packed.load()
    assert repr(back) == repr(value), source
    made[source] = (bytes(packed.data), [bytes(each) for each in packed.buffers], repr(value))
pickle.dump(made, open(sys.argv[1], "wb"))
"""
LOAD = """
import pickle, sys
from pyrokernel.wire.codec import Packed
for source, (data, buffers, text) in pickle.load(open(sys.argv[1], "rb")).items():
    assert repr(Packed(data, buffers).load()) == text, source
"""
SOURCES = [
    "2^100",
    "3/4",
    "QQ['x'].gen()^2 - 1/2",
    "(QQ['x'].gen()^2 - 1).factor()",
    "QQ['a,b'].gens()[0]^2",
    "matrix(QQ, 2, 2, [1, 2, 3, 4])",
    "matrix(ZZ, 2, 2, [1, 2, 3, 4])",
    "matrix(RDF, 2, 2, [1, 2, 3, 4])",
    "vector([1, 2])",
    "TimeSeries([1, 2, 3])",
    "1.5",
    "RealField(100)(2).sqrt()",
    "CC(1, 2)",
    "GF(7)(3)",
    "GF(9, 'z').gen()",
    "factor(360)",
    "QQ",
    "[1, {2: 1/3}]",
]


def run(source: str, *arguments: str) -> None:
    done = subprocess.run([sys.executable, "-c", source, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_objects_survive_the_way_to_another_process(tmp_path: Path) -> None:
    file = str(tmp_path / "values")
    run(f"SOURCES = {SOURCES!r}\n{DUMP}", file)
    run(LOAD, file)
    assert list(pickle.loads((tmp_path / "values").read_bytes())) == SOURCES


def test_a_function_travels_that_names_what_sage_has_not_imported_yet() -> None:
    run("""
from pyrokernel.wire.codec import Packed
from pyrokernel_sage import parts
names = parts.names()
assert type(names["TimeSeries"]).__name__ == "LazyImport"
names["__name__"] = "__main__"
exec("def f(n): return TimeSeries(n)", names)
assert len(Packed.dump(names["f"]).load()(3)) == 3
""")
