"""Every error keeps its class, text and fields on its way between processes."""

from __future__ import annotations

import builtins
import json
import pickle
import re
from typing import Any

import pytest

from pyrokernel import errors
from pyrokernel.errors import (
    GatherError,
    KernelDiedError,
    ProtocolError,
    PyrokernelError,
    RemoteError,
    error_from_wire,
    error_to_wire,
)

CLASSES = [
    member
    for name in errors.__all__
    if isinstance(member := getattr(errors, name), type) and issubclass(member, PyrokernelError)
]
EACH_CLASS = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)

SAMPLES: dict[str, Any] = {
    "name": "camera",
    "holder": "host 'lab', instance 0123",
    "owner": "analysis.py",
    "kernel": "k0",
    "instance": "0123456789abcdef",
    "new_instance": "fedcba9876543210",
    "signal": 9,
    "exit_code": None,
    "peak_memory_bytes": 1 << 30,
    "last_cell": {"cell": "c0ffee", "source": "while True: pass"},
    "tail": "line 1\nline 2 \udcff\n",
    "cause": "killed by SIGKILL",
    "cell": "c0ffee",
    "reason": "it takes 100 MB",
    "ring": ["k0", "k1", "k0"],
    "seconds": 2.5,
    "replies": {"k1": 3},
    "missing": ["k0", "k2"],
    "names": ["x"],
    "ename": "ZeroDivisionError",
    "evalue": "division by zero",
    "traceback": "Traceback ...\n",
    "key": "calibration",
    "expected": 3,
    "actual": 0,
    "author": "ada",
    "type": "ourlab.Model",
    "since": 5,
    "floor": 900,
    "path": "/var/lib/state.db",
    "backup": "/var/lib/backups/auto-1",
    "unsure": True,
    "index": 17,
    "item": "'a.txt'",
    "machine": "lab2 at 10.0.0.2:9191",
    "errors": {"k0": RemoteError(kernel="k0", ename="KeyError", evalue="'x'", traceback="", cell="c0ffee")},
}


def sample(cls: type[PyrokernelError]) -> PyrokernelError:
    """Make an error with every field set."""
    return cls(**{name: SAMPLES[name] for name in cls.fields}) if cls.fields else cls("what happened, and what to try")


def content(error: Exception) -> tuple[object, ...]:
    """Return what must survive."""
    fields = getattr(error, "fields", ())
    return type(error), str(error), {name: error_to_plain(getattr(error, name)) for name in fields}


def error_to_plain(value: Any) -> Any:
    """Make errors inside fields comparable."""
    if isinstance(value, dict):
        return {key: error_to_plain(item) for key, item in value.items()}
    return content(value) if isinstance(value, Exception) else value


@EACH_CLASS
def test_an_error_survives_the_wire(cls: type[PyrokernelError]) -> None:
    error = sample(cls)
    through_json = json.loads(json.dumps(error_to_wire(error)))
    assert content(error_from_wire(through_json)) == content(error)


@EACH_CLASS
def test_an_error_survives_pickle(cls: type[PyrokernelError]) -> None:
    error = sample(cls)
    assert content(pickle.loads(pickle.dumps(error))) == content(error)


@EACH_CLASS
def test_an_error_without_fields_still_has_a_message(cls: type[PyrokernelError]) -> None:
    fields = {"missing": (), "ring": (), "seconds": 0.0, "errors": {}, "replies": {}, "names": ()}
    assert str(cls(**{name: fields[name] for name in cls.fields if name in fields}))


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(TypeError, match="has no field 'colour'"):
        RemoteError(kernel="k0", colour="red")


def test_the_tree_at_the_top_of_the_module_is_the_real_one() -> None:
    drawn: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"( {4,})([A-Z]\w+Error)\b", line):
            depth, name = len(found[1]), found[2]
            path = [(d, n) for d, n in path if d < depth]
            drawn[name] = path[-1][1] if path else "Exception"
            path.append((depth, name))
    assert drawn == {cls.__name__: cls.__bases__[0].__name__ for cls in CLASSES}


def test_builtin_exceptions_come_back_as_themselves() -> None:
    error = error_from_wire(error_to_wire(ValueError("no such thing")))
    assert type(error) is ValueError
    assert str(error) == "no such thing"


@pytest.mark.parametrize(
    "name", [name for name in dir(builtins) if isinstance(member := getattr(builtins, name), type)]
)
def test_no_name_a_peer_sends_makes_more_than_an_exception(name: str) -> None:
    assert isinstance(error_from_wire({"error": name, "message": "text"}), Exception)


@pytest.mark.parametrize("name", ["", "os.system", "KeyboardInterrupt", "SystemExit", "ClassVar", "print", "__doc__"])
def test_what_is_no_exception_becomes_a_protocol_error(name: str) -> None:
    assert type(error_from_wire({"error": name, "message": "text"})) is ProtocolError


def test_gather_error_folds_equal_failures_and_counts_the_rest() -> None:
    def failure(kernel: str, ename: str) -> RemoteError:
        return RemoteError(kernel=kernel, ename=ename, evalue="", traceback="", cell="")

    alike = {f"k{n}": failure(f"k{n}", "KeyError") for n in range(3)}
    others = {f"k{n}": failure(f"k{n}", f"Error{n}") for n in range(3, 8)}
    text = str(GatherError(errors={**alike, **others}, replies={"k8": 1}))
    assert text.splitlines()[0] == "8 of 9 kernels failed"
    assert "k0, k1, k2: KeyError" in text
    assert text.splitlines()[-1] == "and 3 other failures; see .errors"


def test_one_more_failure_is_counted_in_the_singular() -> None:
    errors = {f"k{n}": RemoteError(kernel=f"k{n}", ename=f"Error{n}", evalue="", traceback="") for n in range(4)}
    assert str(GatherError(errors=errors, replies={})).splitlines()[-1] == "and 1 other failure; see .errors"


def test_a_failure_of_one_kernel_keeps_its_name_and_folded_ones_say_this_kernel() -> None:
    def failure(kernel: str, cell: int, evalue: str) -> RemoteError:
        traceback = f'File "<cell {cell}>"'
        return RemoteError(kernel=kernel, ename="KeyError", evalue=evalue, traceback=traceback)

    alike = {"k0": failure("k0", 3, "'x'"), "k1": failure("k1", 4, "'x'")}
    lines = str(GatherError(errors={**alike, "k2": failure("k2", 5, "'y'")}, replies={})).splitlines()
    assert lines[1:3] == ["k0, k1: KeyError: 'x' (in this kernel)", 'File "<cell>"']
    assert lines[3:] == ["k2: KeyError: 'y' (in kernel 'k2')", 'File "<cell 5>"']


def test_folding_leaves_alone_what_the_users_code_said() -> None:
    errors = {name: RemoteError(kernel=name, ename="KeyError", evalue="'k0'", traceback="") for name in ("k0", "k1")}
    assert "k0, k1: KeyError: 'k0' (in this kernel)" in str(GatherError(errors=errors, replies={}))


def test_deaths_for_the_same_cause_fold() -> None:
    errors = {name: KernelDiedError(kernel=name, cause="killed by SIGKILL") for name in ("k0", "k1")}
    assert str(GatherError(errors=errors, replies={})).splitlines()[1] == "k0, k1: this kernel died: killed by SIGKILL"


def test_a_failure_of_an_item_says_which() -> None:
    error = RemoteError(kernel="k0", ename="ValueError", evalue="no", traceback="Trace", index=3, item="'a'")
    assert str(error).splitlines() == [
        "ValueError: no (item 3 ('a') in kernel 'k0')",
        "Trace",
    ]
