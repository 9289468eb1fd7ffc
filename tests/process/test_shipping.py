"""Code that is shipped becomes real modules in kernels, now and later."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from waiting import wait_until

import pyrokernel as pk
from pyrokernel.client import shipping

pytestmark = pytest.mark.slow

FIT = "def remote_fit(self, n, power=2):\n    return n ** power\n"


@pytest.fixture(scope="module")
def shared() -> Iterator[pk.Mesh]:
    with pk.local(3) as mesh:
        yield mesh


@pytest.fixture
def mesh(shared: pk.Mesh) -> Iterator[pk.Mesh]:
    yield shared
    group = shared[:]
    names = {one.name for found in group.shipped().values() for one in found}
    if names:
        group.unship(*names)
    group.execute("for _each in [name for name in globals() if name[0] != '_']: del globals()[_each]")


def states(found: dict[str, list[pk.Shipped]]) -> set[str]:
    return {one.state for ones in found.values() for one in ones}


def modules(kernel: pk.Kernel) -> list[str]:
    kernel.execute("0")  # a new kernel loads what is on the shelf before its first cell
    return [one.name for one in kernel.shipped()]


def write(path: Path, source: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(source), encoding="utf-8")
    return path


def test_a_shipped_file_is_a_real_module_with_its_lines_in_tracebacks(mesh: pk.Mesh, tmp_path: Path) -> None:
    file = write(tmp_path / "analysis.py", "def divide(a, b):\n    return a / b  # the line of the file\n")
    assert states(mesh[:].ship(file)) == {"shipped"}
    assert mesh["k1"].execute("import analysis; analysis.divide(6, 3)").result == 2
    reply = mesh["k1"].execute("analysis.divide(1, 0)", check=False)
    assert "return a / b  # the line of the file" in reply.traceback
    assert "importlib" not in reply.traceback
    assert mesh["k1"].execute("import inspect; inspect.getsource(analysis.divide)").result.startswith("def divide")


def test_shipping_the_same_again_runs_nothing(mesh: pk.Mesh) -> None:
    mesh[:].ship("import sys\nsys.runs = getattr(sys, 'runs', 0) + 1\n", name="counted")
    assert states(mesh[:].ship("import sys\nsys.runs = getattr(sys, 'runs', 0) + 1\n", name="counted")) == {"unchanged"}
    assert mesh["k0"].execute("import sys; sys.runs").result == 1


def test_a_changed_file_replaces_the_old_version_and_says_so(mesh: pk.Mesh) -> None:
    (first,) = mesh["k0"].ship(FIT, name="fitting")
    mesh["k1"].ship(FIT, name="fitting")
    (second,) = mesh["k0"].ship(FIT.replace("**", "*"), name="fitting")
    assert (second.state, second.was) == ("replaced", first.digest)
    assert mesh["k0"].call("fit", 5) == 10
    versions = {name: [one.digest for one in found] for name, found in mesh[:2].shipped().items()}
    assert versions == {"k0": [second.digest], "k1": [first.digest]}


def test_marked_functions_and_those_named_remote_are_commands(mesh: pk.Mesh) -> None:
    source = """
        from pyrokernel import command
        from os.path import join as remote_join  # not its own

        @command
        def scale(values: list[float], factor: float = 2.0) -> list[float]:
            return [value * factor for value in values]

        @command(name="stop", safe=True)
        def _halt():
            return "halted"

        def remote_where(self):
            self.namespace["seen"] = self.tags
            return self.kernel

        def helper(): ...
    """
    found = mesh[:].ship(textwrap.dedent(source), name="tools")
    assert [one.commands for one in found["k0"]] == [("scale", "stop", "where")]
    assert mesh[:].call("where") == {"k0": "k0", "k1": "k1", "k2": "k2"}
    assert mesh["k0"].pull("seen") == ()
    assert mesh[:].commands.scale([1, 2], factor=3)["k2"] == [3, 6]
    assert mesh["k0"].execute("scale([1.5])").result == [3.0]
    assert mesh["k0"].variables() == [{"name": "seen", "type": "tuple", "summary": "()", "size": 0}]


def test_a_package_is_shipped_with_its_modules_and_data(mesh: pk.Mesh, tmp_path: Path) -> None:
    write(tmp_path / "lab" / "__init__.py", "from lab.deep.inner import remote_read\n")
    write(tmp_path / "lab" / "deep" / "__init__.py", "")
    write(
        tmp_path / "lab" / "deep" / "inner.py",
        "from pathlib import Path\ndef remote_read(): return Path(__file__).with_name('data.txt').read_text()\n",
    )
    write(tmp_path / "lab" / "deep" / "data.txt", "42")
    write(tmp_path / "lab" / "__pycache__" / "junk.pyc", "")
    assert states(mesh[:].ship(tmp_path / "lab")) == {"shipped"}
    assert mesh["k2"].call("read") == "42"
    assert mesh["k2"].execute("import lab.deep.inner as i; i.__name__").result == "lab.deep.inner"
    write(tmp_path / "lab" / "deep" / "data.txt", "43")
    assert states(mesh[:].ship(tmp_path / "lab")) == {"replaced"}
    assert mesh["k2"].call("read") == "43"


def test_files_shipped_together_import_each_other_whatever_their_order(mesh: pk.Mesh, tmp_path: Path) -> None:
    one = write(tmp_path / "one.py", "from two import base\ndef remote_double(): return 2 * base\n")
    two = write(tmp_path / "two.py", "base = 4\n")
    mesh[:].ship(one, two)
    assert mesh["k0"].call("double") == 8
    write(two, "base = 5\n")
    found = mesh["k0"].ship(one, two)
    assert [item.state for item in found] == ["rerun", "replaced"]
    assert mesh["k0"].call("double") == 10


def test_what_imports_a_replaced_module_is_run_again_also_when_shipped_earlier(mesh: pk.Mesh) -> None:
    kernel = mesh["k0"]
    kernel.ship("base = 1\n", name="low")
    kernel.ship("from low import base\nimport low\ndef remote_get(): return base\n", name="high")
    kernel.ship("base = 2\n", name="low")
    assert kernel.call("get") == 2


def test_a_file_that_raises_leaves_the_old_version(mesh: pk.Mesh) -> None:
    mesh[:].ship(FIT, name="fitting")
    with pytest.raises(pk.GatherError) as caught:
        mesh[:].ship("value = 1\nraise RuntimeError('at import')\n", name="fitting")
    assert "fitting.py" in str(caught.value)
    assert "raise RuntimeError('at import')" in str(caught.value)
    assert mesh[:].call("fit", 3) == {"k0": 9, "k1": 9, "k2": 9}
    assert mesh["k0"].execute("import fitting; hasattr(fitting, 'value')").result is False


def test_a_shipment_that_failed_is_not_what_counts_for_what_imports_what(mesh: pk.Mesh) -> None:
    kernel = mesh["k0"]
    kernel.ship("base = 1\n", name="low")
    kernel.ship("from low import base\ndef remote_get(): return base\n", name="high")
    with pytest.raises(pk.RemoteError):
        kernel.ship("raise RuntimeError('no imports here')\n", name="high")
    kernel.ship("base = 2\n", name="low")
    assert kernel.call("get") == 2


def test_a_missing_import_names_kernel_module_and_remedy(mesh: pk.Mesh) -> None:
    with pytest.raises(pk.RemoteError) as caught:
        mesh["k1"].ship("import os\nimport no_such_module\n", name="needy")
    text = str(caught.value)
    assert "no_such_module" in text
    assert "needy.py imports in line 2" in text
    assert "%pip install no_such_module" in text
    assert caught.value.kernel == "k1"


@pytest.mark.parametrize("name", ["json", "pyrokernel", "numpy", "__main__", "class", "not-a-name", "e\u0301"])
def test_a_name_that_would_hide_a_module_is_refused(mesh: pk.Mesh, name: str) -> None:
    with pytest.raises((pk.ShipError, pk.RemoteError), match="rename the file"):
        mesh["k0"].ship("x = 1\n", name=name)
    assert mesh["k0"].execute("import json; json.dumps(1)").result == "1"


def test_a_syntax_error_is_shown_with_its_line_before_anything_is_sent(mesh: pk.Mesh, tmp_path: Path) -> None:
    mesh["k0"].ship(FIT, name="fitting")
    before = mesh["k0"].describe()["execution_count"]
    file = write(tmp_path / "fitting.py", "x = 1\ndef broken(:\n    pass\n")
    with pytest.raises(pk.ShipError, match=r"def broken\(:") as caught:
        mesh["k0"].ship(file)
    assert f'"{file}", line 2' in str(caught.value)
    assert mesh["k0"].describe()["execution_count"] == before
    assert mesh["k0"].call("fit", 2) == 4


def test_bad_files_are_refused_here(mesh: pk.Mesh, tmp_path: Path) -> None:
    kernel = mesh["k0"]
    (tmp_path / "latin.py").write_bytes("name = 'Müller'\n".encode("latin-1"))
    with pytest.raises(pk.ShipError, match=r"latin\.py"):
        kernel.ship(tmp_path / "latin.py")
    (tmp_path / "declared.py").write_bytes("# -*- coding: latin-1 -*-\nname = 'Müller'\n".encode("latin-1"))
    kernel.ship(tmp_path / "declared.py")
    assert kernel.execute("import declared; declared.name").result == "Müller"
    with (tmp_path / "huge.py").open("wb") as huge:
        huge.truncate(100 * 2**20)
    with pytest.raises(pk.ShipError, match="100 MiB"):
        kernel.ship(tmp_path / "huge.py")
    (tmp_path / "nulls.py").write_bytes(b"x = 1\0\n")
    with pytest.raises(pk.ShipError, match="null"):
        kernel.ship(tmp_path / "nulls.py")
    with pytest.raises(pk.ShipError, match="No such file"):
        kernel.ship(tmp_path / "absent.py")
    with pytest.raises(pk.ShipError, match=r"no __init__\.py"):
        kernel.ship(tmp_path)
    with pytest.raises(pk.ShipError, match="nothing to ship"):
        kernel.ship()
    (tmp_path / "linked").mkdir()
    write(tmp_path / "linked" / "__init__.py", "")
    (tmp_path / "linked" / "out.py").symlink_to("/etc/hostname")
    with pytest.raises(pk.ShipError, match="outside of the package"):
        kernel.ship(tmp_path / "linked")
    with pytest.raises(pk.ShipError, match="both called"):
        kernel.ship(tmp_path / "declared.py", write(tmp_path / "other" / "declared.py", "x = 1\n"))


def test_a_peer_cannot_write_outside_of_the_shelf(mesh: pk.Mesh, tmp_path: Path) -> None:
    evil = {"../evil.py": b"x = 1\n"}
    digest = shipping.digest_of(evil)
    module = {"name": "evil", "digest": digest, "shown": "evil.py", "main": "../evil.py", "files": evil}
    with pytest.raises(pk.RemoteError, match="lies outside"):
        mesh["k0"]._alone.run_shipping("ship", [module], "ship evil.py", None)
    module = {"name": "evil", "digest": "../../../etc", "shown": "evil.py", "main": "evil.py", "files": {}}
    with pytest.raises(pk.RemoteError, match="no digest"):
        mesh["k0"]._alone.run_shipping("ship", [module], "ship evil.py", None)


def test_a_command_of_another_owner_is_refused_with_both_names(mesh: pk.Mesh) -> None:
    mesh["k0"].ship(FIT, name="fitting")
    with pytest.raises(pk.RemoteError) as caught:
        mesh["k0"].ship(FIT.replace("n **", "-n **"), name="rival")
    assert "rival.py" in str(caught.value)
    assert "fitting.py" in str(caught.value)
    assert mesh["k0"].call("fit", 3) == 9
    assert [one.name for one in mesh["k0"].shipped()] == ["fitting"]


def test_unship_takes_module_commands_and_names_away(mesh: pk.Mesh) -> None:
    mesh[:].ship(FIT, name="fitting")
    assert mesh[:].unship("fitting.py") == {"k0": ["fitting"], "k1": ["fitting"], "k2": ["fitting"]}
    with pytest.raises(pk.GatherError, match="no command"):
        mesh[:].call("fit", 3)
    with pytest.raises(pk.RemoteError, match="No module named"):
        mesh["k0"].execute("import fitting")
    assert mesh["k0"].execute("'fit' in globals()").result is False


def test_a_name_that_the_user_has_set_is_left_alone(mesh: pk.Mesh) -> None:
    mesh["k0"].execute("fit = 'mine'")
    mesh["k0"].ship(FIT, name="fitting")
    assert mesh["k0"].pull("fit") == "mine"
    mesh["k0"].execute("del fit")
    mesh["k0"].unship("fitting")
    mesh["k0"].ship(FIT, name="fitting")
    assert mesh["k0"].execute("fit(3)").result == 9


def test_classes_of_shipped_modules_travel_both_ways(mesh: pk.Mesh) -> None:
    kernel = mesh["k0"]
    kernel.ship("class Point:\n    def __init__(self, x): self.x = x\n", name="geometry")
    point = kernel.execute("import geometry; geometry.Point(3)").result
    assert point.x == 3
    kernel.push(back=point)
    assert kernel.execute("isinstance(back, geometry.Point)").result is True


def test_classes_and_functions_of_main_travel_both_ways(mesh: pk.Mesh) -> None:
    kernel = mesh["k0"]
    kernel.execute("class Thing:\n    size = 5\ndef grow(t): return t.size + 1")
    thing = kernel.pull("Thing")
    assert thing.size == 5
    assert mesh["k1"].call(lambda t: t().size * 2, thing) == 10
    assert kernel.call("grow", thing) == 6


def test_a_kernel_that_starts_later_has_what_was_shipped_to_its_group() -> None:
    with pk.local(1) as mesh:
        mesh[:].ship(FIT, name="fitting")
        mesh["k0"].ship("only = 1\n", name="alone")
        mesh.start([pk.KernelSpec(name="late"), pk.KernelSpec(name="big1", tags=("big",))])
        assert mesh["late"].call("fit", 3) == 9
        assert modules(mesh["late"]) == ["fitting"]
        mesh.tagged("big").ship("x = 1\n", name="large")
        mesh.start([pk.KernelSpec(name="big2", tags=("big",))])
        assert modules(mesh["big2"]) == ["fitting", "large"]
        mesh["k0"].restart()
        assert modules(mesh["k0"]) == ["alone", "fitting"]
        mesh[:].unship("fitting")
        mesh["k0"].restart()
        assert modules(mesh["k0"]) == ["alone"]


def test_a_kernel_that_gave_a_module_back_does_not_get_it_again() -> None:
    with pk.local(2) as mesh:
        mesh[:].ship(FIT, name="fitting")
        mesh["k0"].unship("fitting")
        mesh[:].restart()
        assert (modules(mesh["k0"]), modules(mesh["k1"])) == ([], ["fitting"])


def test_what_failed_somewhere_is_not_kept_for_later_kernels() -> None:
    with pk.local(2) as mesh:
        mesh["k1"].execute("import sys; sys.refuse = True")
        with pytest.raises(pk.GatherError):
            mesh[:].ship("import sys\nassert not hasattr(sys, 'refuse')\n", name="picky")
        mesh.start(1)
        assert mesh["k2"].shipped() == []


def test_a_broken_module_on_the_shelf_costs_itself_alone(tmp_path: Path) -> None:
    init = write(tmp_path / "init.py", "1 / 0\n")
    with pk.local(1) as mesh:
        mesh[:].ship(FIT, name="fitting")
        mesh[:].ship("import os\nassert 'LATE' not in os.environ\n", name="frail")
        mesh.start([pk.KernelSpec(name="late", env={"LATE": "1"}, init=str(init))])
        assert mesh["late"].call("fit", 3) == 9
        wait_until(lambda: "ZeroDivisionError" in mesh["late"].describe()["init_error"])
        assert "ship frail.py: AssertionError" in mesh["late"].describe()["init_error"]
        assert "fitting" not in mesh["late"].describe()["init_error"]


def test_a_module_that_ends_the_kernel_is_not_loaded_in_its_next_life(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    with pk.local(1) as mesh:
        mesh[:].ship(FIT, name="fitting")
        mesh[:].ship(f"import os\nif os.path.exists({str(flag)!r}): os._exit(9)\n", name="deadly")
        flag.touch()
        mesh["k0"].restart()
        wait_until(lambda: "deadly.py: the kernel died of it" in init_error(mesh), timeout=30)
        assert modules(mesh["k0"]) == ["fitting"]
        flag.unlink()
        mesh["k0"].ship("x = 1\n", name="deadly")
        mesh["k0"].restart()
        assert modules(mesh["k0"]) == ["deadly", "fitting"]
        assert mesh["k0"].describe()["init_error"] == ""


def init_error(mesh: pk.Mesh) -> str:
    try:
        return str(mesh["k0"].describe()["init_error"])
    except pk.PyrokernelError:  # between two lives
        return ""


def test_files_that_are_gone_from_the_shelf_cost_themselves_alone() -> None:
    with pk.local(1) as mesh:
        mesh[:].ship(FIT, name="fitting")
        (lost,) = mesh["k0"].ship("x = 1\n", name="lost")
        shelf = Path(mesh["k0"].execute("import fitting; fitting.__file__").result).parents[1]
        shutil.rmtree(shelf / lost.digest)
        mesh["k0"].restart()
        assert modules(mesh["k0"]) == ["fitting"]
        assert "files of lost.py are gone" in mesh["k0"].describe()["init_error"]


@pytest.mark.parametrize("garbage", ["[{", "[1, null]", "[" * 100_000, '[{"shipped": {"name": 3, "digest": 4}}]'])
def test_a_damaged_index_costs_no_kernel(garbage: str) -> None:
    with pk.local(1) as mesh:
        mesh[:].ship(FIT, name="fitting")
        shelf = Path(mesh["k0"].execute("import fitting; fitting.__file__").result).parents[1]
        (shelf / "index.json").write_text(garbage)
        mesh["k0"].restart()
        assert mesh["k0"].execute("6 * 7").result == 42
        assert "damaged" in mesh["k0"].describe()["init_error"]


def test_a_module_that_hides_itself_does_not_spoil_what_travels(mesh: pk.Mesh) -> None:
    kernel = mesh["k0"]
    kernel.ship("import sys\nclass Lazy: pass\nsys.modules[__name__] = Lazy()\n", name="hidden")
    kernel.ship("__name__ = 'other'\n", name="renamed")
    kernel.ship("import sys\nsys.modules[__name__] = 5\n", name="number")
    assert kernel.execute("lambda: 1").result() == 1
    kernel.ship("import sys\nsys.meta_path[:] = [f for f in sys.meta_path if 'Finder' in str(f)]\n", name="wiped")
    kernel.ship("x = 1\n", name="after")
    assert kernel.execute("import after; after.x").result == 1


def test_a_command_named_as_a_builtin_leaves_that_alone(mesh: pk.Mesh) -> None:
    kernel = mesh["k0"]
    printed: dict[str, str] = {}
    modules = shipping.read_modules(["def remote_sum(values): return 'mine'\n"], "summing")
    shipping.ship(kernel._alone, modules, None, printed)
    assert "the command is called as :sum" in printed["k0"]
    assert kernel.execute("sum([1, 2])").result == 3
    assert kernel.call("sum", [1, 2]) == 3
    assert kernel.call(":sum", [1, 2]) == "mine"
    assert kernel.commands.sum([1]) == "mine"


def test_an_init_file_finds_what_was_shipped(tmp_path: Path) -> None:
    init = write(tmp_path / "init.py", "import fitting\nready = fitting.remote_fit(None, 3)\n")
    with pk.local(1) as mesh:
        mesh[:].ship(FIT, name="fitting")
        mesh.start([pk.KernelSpec(name="eager", init=str(init))])
        wait_until(lambda: any(one["name"] == "ready" for one in mesh["eager"].variables()))
        assert mesh["eager"].pull("ready") == 9


def test_a_kernel_whose_host_was_killed_still_takes_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(*args: object) -> tuple[dict[str, object], list[str]]:
        return {}, ["host here: no answer"]

    with pk.local(1) as mesh:
        monkeypatch.setattr(shipping, "ask_hosts", nobody)
        with pytest.raises(pk.ShipError, match="start later will not have it"):
            mesh["k0"].ship(FIT, name="fitting")
        assert mesh["k0"].call("fit", 3) == 9


def test_a_shipment_is_a_cell_that_waits_its_turn(mesh: pk.Mesh) -> None:
    kernel = mesh["k0"]
    cell = kernel.submit("import time; time.sleep(60)")
    wait_until(lambda: kernel.describe()["running"] is not None)
    with pytest.raises(pk.ReplyTimeoutError):
        kernel.ship("x = 1\n", name="later", timeout=0.5)
    cell.interrupt()
    wait_until(lambda: [one.name for one in kernel.shipped()] == ["later"])
    wait_until(lambda: "ship later.py" in [one["source"] for one in kernel.cells()])


def test_thousands_of_files_reship_without_running(mesh: pk.Mesh, tmp_path: Path) -> None:
    files = [write(tmp_path / f"part{n}.py", f"def remote_part{n}(): return {n}\n") for n in range(300)]
    assert states(mesh[:].ship(*files)) == {"shipped"}
    assert mesh["k0"].call("part299") == 299
    before = mesh["k0"].describe()["execution_count"]
    assert states(mesh[:].ship(*files)) == {"unchanged"}
    assert mesh["k0"].describe()["execution_count"] == before
