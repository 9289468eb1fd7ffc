"""A broken plugin costs itself alone: kernels answer, other plugins work, and `plugins()` names what is wrong."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from served import from_template
from waiting import wait_until

import pyrokernel as pk
from pyrokernel.messages import PluginInfo
from pyrokernel.testing import assert_loaded, package_folder

HEAD = "import sys\nfrom pyrokernel import hookimpl\n"

BROKEN = {
    "arguments": "@hookimpl\ndef pyrokernel_register_commands(register, colour): pass\n",
    "exits": "raise SystemExit('enough')\n",
    "first": """
def mine(): return "first"
def both(): return "first"
@hookimpl
def pyrokernel_register_commands(register):
    register(both)
    register(mine, name="first_mine")
@hookimpl
def pyrokernel_add_names(): return {"given": "first"}
""",
    "halfway": """
def early(): return "early"
@hookimpl
def pyrokernel_register_commands(register):
    register(early)
    raise RuntimeError("no instrument")
@hookimpl
def pyrokernel_add_names(): return {"halfway_name": 1}
""",
    "hidden": """
import types
class Replaced(types.ModuleType):
    pass
replaced = Replaced(__name__)
replaced.__dict__.update({key: value for key, value in globals().items() if not key.startswith("__")})
@hookimpl
def pyrokernel_add_names(): return {"from_replaced": 1}
replaced.pyrokernel_add_names = pyrokernel_add_names
sys.modules[__name__] = replaced
""",
    "liar": """
def fine(x: int = 1): return x
def lying(x): return x
lying.__signature__ = "no signature"
class Device:
    __name__ = "raising"
    __signature__ = property(lambda self: 1 / 0)
    def __call__(self): return 1
@hookimpl
def pyrokernel_register_commands(register):
    register(lying)
    register(Device())
    register(3)
    register(lambda: 1)
    register(fine, name="not a name")
    register(fine)
""",
    "names": """
@hookimpl
def pyrokernel_add_names(): return {"no name": 1, 3: 4, "good_name": 5}
""",
    "names_odd": "@hookimpl\ndef pyrokernel_add_names(): return 7\n",
    "observer": """
@hookimpl
def pyrokernel_cell_started(cell): raise ValueError("cannot look at " + cell["source"][:5])
@hookimpl
def pyrokernel_cell_ended(cell): raise SystemExit(3)
""",
    "prints": "print('printed at import')\nprint('and as an error', file=sys.stderr)\n",
    "raises": "raise LookupError('no such device')\n",
    "second": """
def both(): return "second"
def second_mine(self): return self.settings
@hookimpl
def pyrokernel_register_commands(register):
    register(both)
    register(second_mine)
@hookimpl
def pyrokernel_add_names(): return {"given": "second", "second_name": 2}
""",
    "seizes": "@hookimpl\ndef pyrokernel_add_names(): return {'shared': 1, 'seized': 2}\n",
    "syntax": "def f(:\n",
    "textless": """
class Textless(Exception):
    def __str__(self): raise RuntimeError
@hookimpl
def pyrokernel_cell_started(cell): raise Textless
""",
    "transform_a": "@hookimpl\ndef pyrokernel_transform_source(source): raise KeyError('dialect')\n",
    "transform_b": "@hookimpl\ndef pyrokernel_transform_source(source): return 3\n",
    "transform_c": "@hookimpl\ndef pyrokernel_transform_source(source): return source.replace('¿', '40 +')\n",
    "unknown": "@hookimpl\ndef pyrokernel_start_coffee(): pass\n",
    "unwanted": "raise RuntimeError('never imported')\n",
}
"""By name, what is wrong with each; those beside them work."""


def write(folder: Path, name: str, text: str) -> None:
    (folder / f"pyrokernel_{name}.py").write_text(HEAD + text)


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pk.Mesh]:
    folder = tmp_path_factory.mktemp("plugins")
    for name, text in BROKEN.items():
        write(folder, name, text)
    (folder / "pyrokernel_no-identifier.py").write_text("raise ImportError\n")
    (folder / "unrelated.py").write_text("raise ImportError\n")
    folders = f"{folder}:{folder / 'missing'}"
    with pk.local(2, plugins_dir=folders, no_plugin="unwanted, nobody", plugins={"second": {"port": 5}}) as found:
        yield found


def infos(kernel: pk.Kernel) -> dict[str, PluginInfo]:
    return {info.name: info for info in kernel.plugins()}


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("arguments", "colour"),
        ("exits", "SystemExit: enough"),
        ("raises", r"LookupError: no such device \(.*pyrokernel_raises.py, line 3\)"),
        ("syntax", "SyntaxError: invalid syntax"),
        ("unknown", "it implements pyrokernel_start_coffee, which is no hook: pyrokernel_add_names, "),
    ],
)
def test_what_cannot_be_loaded_is_named_with_its_reason(kernel: pk.Kernel, name: str, problem: str) -> None:
    info = infos(kernel)[name]
    assert not info.loaded
    assert info.hooks == ()
    assert len(info.problems) == 1
    assert re.search(problem, info.problems[0]), info.problems


def test_the_kernel_answers_and_other_plugins_work(group: pk.Group) -> None:
    assert {reply.result for reply in group.execute("¿ 2").values()} == {42}
    assert group.call("both") == {"k0": "first", "k1": "first"}


def test_of_two_commands_with_one_name_the_first_stays_and_both_owners_are_named(kernel: pk.Kernel) -> None:
    found = infos(kernel)
    assert found["first"].commands == ("both", "first_mine")
    assert found["first"].problems == ()
    assert found["second"].commands == ("second_mine",)
    (clash,) = (problem for problem in found["second"].problems if "both" in problem)
    assert "plugin first" in clash
    assert "plugin second" in clash


def test_of_two_names_that_are_one_the_first_stays(kernel: pk.Kernel) -> None:
    assert kernel.execute("given, second_name").result == ("first", 2)
    assert any("'given' is given by plugin 'first'" in problem for problem in infos(kernel)["second"].problems)


def test_a_command_has_the_section_of_its_plugin(kernel: pk.Kernel) -> None:
    assert kernel.call("second_mine") == {"port": 5}


def test_what_came_before_a_hook_raised_stays_and_the_next_hook_is_called(kernel: pk.Kernel) -> None:
    info = infos(kernel)["halfway"]
    assert info.loaded
    assert info.commands == ("early",)
    assert any("RuntimeError: no instrument" in problem for problem in info.problems)
    assert kernel.call("early") == "early"
    assert kernel.execute("halfway_name").result == 1


def test_what_cannot_be_a_command_is_refused_one_by_one(kernel: pk.Kernel) -> None:
    info = infos(kernel)["liar"]
    assert info.commands == ("fine",)
    assert len(info.problems) == 5
    assert kernel.call("fine", 3) == 3


def test_what_is_no_name_is_refused_one_by_one(kernel: pk.Kernel) -> None:
    assert kernel.execute("good_name").result == 5
    assert infos(kernel)["names"].names == ("good_name",)
    assert len(infos(kernel)["names"].problems) == 2
    assert infos(kernel)["names_odd"].problems


def test_an_observer_that_raises_or_exits_harms_no_cell(kernel: pk.Kernel) -> None:
    for number in range(11, 14):  # each raises with another text
        kernel.execute(f"{number}")
    reply = kernel.execute("print('out'); 1 + 1")
    assert (reply.result, reply.stdout, reply.stderr) == (2, "out\n", "")
    started, ended = infos(kernel)["observer"].problems
    assert started.startswith("pyrokernel_cell_started raised ValueError: cannot look at")
    assert ended.startswith("pyrokernel_cell_ended raised SystemExit: 3")


def test_observers_are_told_of_each_chunk_of_a_job(kernel: pk.Kernel) -> None:
    before = len(kernel.events())
    assert kernel.map(abs, range(-20, 0), chunk=1).results() == list(range(20, 0, -1))
    started = [event for event in kernel.events()[before:] if event.kind == "started"]
    assert len(started) == 20, "each is a cell of its own, of which observers are told"


def test_what_is_raised_need_not_have_a_text(kernel: pk.Kernel) -> None:
    assert kernel.execute("1 + 1").result == 2
    (problem,) = infos(kernel)["textless"].problems
    assert problem.startswith("pyrokernel_cell_started raised Textless: (without a text) (")


def test_a_transformation_that_fails_leaves_the_source_to_the_next(kernel: pk.Kernel) -> None:
    assert kernel.execute("¿ 2").result == 42
    found = infos(kernel)
    assert any("KeyError: 'dialect'" in problem for problem in found["transform_a"].problems)
    assert any("returned int, not source" in problem for problem in found["transform_b"].problems)
    assert found["transform_c"].problems == ()


def test_a_module_that_replaced_itself_is_what_it_put_in_its_place(kernel: pk.Kernel) -> None:
    assert infos(kernel)["hidden"].problems == ()
    assert kernel.execute("from_replaced").result == 1


def test_what_is_printed_at_import_is_not_lost_and_in_no_value(mesh: pk.Mesh) -> None:
    (kernel,) = mesh.start(1)
    reply = kernel.execute("1 + 1")
    assert reply.result == 2
    text = reply.stdout + reply.stderr + "".join(str(event.data.get("text", "")) for event in kernel.events())
    assert "printed at import" in text


def test_what_is_not_wanted_is_not_imported(kernel: pk.Kernel) -> None:
    assert "unwanted" not in infos(kernel)
    assert kernel.execute("import sys; 'pyrokernel_unwanted' in sys.modules").result is False


def test_other_files_of_the_folder_are_no_plugins(kernel: pk.Kernel) -> None:
    assert set(infos(kernel)) >= set(BROKEN) - {"unwanted"}
    assert not {"no-identifier", "unrelated"} & set(infos(kernel))


def test_names_are_in_every_namespace(kernel: pk.Kernel) -> None:
    assert kernel.execute("good_name, both()", namespace="other").result == (5, "first")


def test_the_name_of_the_shared_state_is_the_kernels_own(kernel: pk.Kernel) -> None:
    assert kernel.execute("type(shared).__name__, seized", namespace="other").result == ("Shared", 2)
    (problem,) = infos(kernel)["seizes"].problems
    assert "'shared' is the kernel's own" in problem


def test_a_user_may_overwrite_a_name_in_one_namespace(kernel: pk.Kernel) -> None:
    kernel.execute("good_name = 'mine'")
    kernel.ship("def remote_of_a_ship(): return good_name\n", name="ship_gives_names_anew")
    assert kernel.execute("good_name").result == "mine"
    assert [one["name"] for one in kernel.variables()].count("good_name") == 1
    assert kernel.execute("good_name", namespace="other").result == 5
    assert kernel.call("of_a_ship") == 5
    kernel.unship("ship_gives_names_anew")


def test_a_user_may_overwrite_a_command_which_can_still_be_called_once_it_is_deleted(kernel: pk.Kernel) -> None:
    kernel.execute("def early(): return 'mine'")
    assert kernel.call("early") == "mine"
    kernel.execute("del early")
    assert kernel.call("early") == "early"


def test_a_test_of_a_plugin_fails_with_its_problems(mesh: pk.Mesh, kernel: pk.Kernel) -> None:
    assert_loaded(mesh, "first", "transform_c")
    with pytest.raises(AssertionError, match=r"kernel k1: plugin 'raises' \(.*LookupError: no such device"):
        assert_loaded(mesh[:], "first", "raises")
    with pytest.raises(AssertionError, match=r"kernel k0: plugin 'nobody' was not found; found: arguments, exits, "):
        assert_loaded(kernel, "nobody")


@pytest.mark.parametrize(("source", "expected"), [(True, "src"), (False, "")])
def test_the_folder_of_a_package_is_found_above_its_tests(tmp_path: Path, source: bool, expected: str) -> None:
    (tmp_path / "tests" / "deep").mkdir(parents=True)
    (tmp_path / "pyproject.toml").touch()
    if source:
        (tmp_path / "src").mkdir()
    assert package_folder(tmp_path / "tests" / "deep" / "test_it.py") == tmp_path / expected


def local_with(folder: Path, kernels: int = 1) -> pk.Mesh:
    return pk.local(kernels, plugins_dir=str(folder))


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_may_not_be_read_is_passed_over(tmp_path: Path) -> None:
    tmp_path.chmod(0)
    try:
        with local_with(tmp_path) as mesh:
            assert mesh["k0"].execute("1 + 1").result == 2
    finally:
        tmp_path.chmod(0o700)


def test_a_file_in_place_of_a_folder_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with local_with(tmp_path / "file") as mesh:
        assert mesh["k0"].execute("1 + 1").result == 2


@pytest.fixture
def hanging(tmp_path: Path) -> pk.Mesh:
    """A mesh with a plugin that is imported until a file appears, and one that works."""
    gate = tmp_path / "gate"
    write(
        tmp_path,
        "hangs",
        f"import os, time\nopen({str(tmp_path / 'began')!r}, 'w').close()\n"
        f"while not os.path.exists({str(gate)!r}): time.sleep(0.01)\n"
        "@hookimpl\ndef pyrokernel_add_names(): return {'late': 1}\n",
    )
    write(tmp_path, "works", "@hookimpl\ndef pyrokernel_add_names(): return {'answer': 42}\n")
    return local_with(tmp_path)


def test_an_import_that_hangs_is_given_up_and_the_others_follow(hanging: pk.Mesh) -> None:
    with hanging as mesh:
        begun = time.monotonic()
        assert mesh["k0"].execute("answer").result == 42
        assert time.monotonic() - begun < 20
        found = infos(mesh["k0"])
        assert not found["hangs"].loaded
        assert "did not end within 10 s; it is left to itself" in found["hangs"].problems[0]
        assert mesh["k0"].execute("'late' in dir()").result is False


def test_an_interrupt_ends_the_wait_for_a_plugin_that_hangs(hanging: pk.Mesh, tmp_path: Path) -> None:
    with hanging as mesh:
        kernel = mesh["k0"]
        cell = kernel.submit("answer")
        wait_until((tmp_path / "began").exists)
        begun = time.monotonic()
        cell.interrupt()
        assert cell.reply(timeout=5, check=False).ename == "KeyboardInterrupt"
        (tmp_path / "gate").touch()  # the next cell waits for the import that goes on
        assert kernel.execute("late, answer").result == (1, 42)
        assert time.monotonic() - begun < 8
        assert all(info.loaded and not info.problems for info in kernel.plugins())


def test_two_who_ask_at_once_load_the_plugins_once(tmp_path: Path) -> None:
    write(
        tmp_path,
        "counts",
        "import builtins, time\nbuiltins.imports = getattr(builtins, 'imports', 0) + 1\ntime.sleep(0.2)\n"
        "@hookimpl\ndef pyrokernel_add_names(): return {'answer': 42}\n",
    )
    with local_with(tmp_path) as mesh:
        kernel = mesh["k0"]
        answers: list[object] = []
        asks: list[Callable[[], object]] = [
            kernel.plugins,
            lambda: list(kernel.commands),
            lambda: kernel.execute("answer, imports").result,
        ]
        threads = [threading.Thread(target=lambda ask=ask: answers.append(ask())) for ask in asks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (42, 1) in answers
        assert kernel.plugins()[0].names == ("answer",)


def test_a_plugin_may_cause_no_surprise_in_the_forks_of_users(tmp_path: Path) -> None:
    write(tmp_path, "fine", "@hookimpl\ndef pyrokernel_add_names(): return {'answer': 42}\n")
    with local_with(tmp_path) as mesh:
        code = (
            "import os\npid = os.fork()\nif not pid: os._exit(answer)\nos.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])"
        )
        assert mesh["k0"].execute(code).result == 42


def test_what_lies_in_a_plugins_folder_is_imported_from_there_though_another_version_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in ("installed", "edited"):
        (tmp_path / version).mkdir()
        write(
            tmp_path / version, "twice", f"@hookimpl\ndef pyrokernel_add_names(): return {{'version': {version!r}}}\n"
        )
        (tmp_path / version / "beside.py").write_text(f"version = {version!r}\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "installed"), prepend=os.pathsep)
    with local_with(tmp_path / "edited") as mesh:
        assert mesh["k0"].execute("version").result == "edited"
        # What else lies there hides nothing.
        assert mesh["k0"].execute("import beside; beside.version").result == "installed"


@from_template
def test_what_fails_to_be_preloaded_costs_itself_alone(tmp_path: Path) -> None:
    write(tmp_path, "breaks", "raise RuntimeError('at import')\n")
    write(tmp_path, "exits", "@hookimpl\ndef pyrokernel_preload(): raise SystemExit(3)\n")
    write(
        tmp_path, "threads", "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    write(
        tmp_path,
        "works",
        "preloaded = []\n"
        "@hookimpl\ndef pyrokernel_preload(): preloaded.append(1)\n"
        "@hookimpl\ndef pyrokernel_add_names(): return {'preloaded': preloaded}\n",
    )
    for names, preloaded, broken in (
        (("breaks", "exits", "works"), [1], ["breaks", "exits"]),
        (("threads", "works"), [], ["breaks"]),
    ):
        sections = {name: {"preload": True} for name in names}
        with pk.local(1, plugins_dir=str(tmp_path), plugins=sections) as mesh:
            # With a thread in the template kernels are spawned, and share nothing.
            assert mesh["k0"].execute("preloaded").result == preloaded
            found = infos(mesh["k0"])
            assert "RuntimeError: at import" in found["breaks"].problems[0]
            assert len(found["breaks"].problems) == 1
            assert [name for name, info in found.items() if info.problems] == broken


def test_sections_of_plugins_do_not_reach_what_cells_start(tmp_path: Path) -> None:
    write(
        tmp_path,
        "secret",
        "def token(self): return self.settings['token']\n"
        "@hookimpl\ndef pyrokernel_register_commands(register): register(token)\n",
    )
    sections = {"secret": {"token": "s3cret"}}
    with pk.local(1, plugins_dir=str(tmp_path), plugins=sections) as mesh:
        assert mesh["k0"].call("token") == "s3cret"
        assert "s3cret" not in mesh["k0"].execute("import os; str(dict(os.environ))").result
        mesh["k0"].restart()
        assert mesh["k0"].call("token") == "s3cret"


def test_an_edited_file_of_a_plugins_folder_is_in_the_next_kernel_also_when_preloaded(tmp_path: Path) -> None:
    source = "@hookimpl\ndef pyrokernel_add_names(): return {'version': 1}\n"
    write(tmp_path, "edited", source)
    with pk.local(1, plugins_dir=str(tmp_path), plugins={"edited": {"preload": True}}) as mesh:
        assert mesh["k0"].execute("version").result == 1
        path = tmp_path / "pyrokernel_edited.py"
        # Longer by a character: byte code is told from its source by size and time, and that in whole seconds.
        path.write_text(path.read_text().replace("'version': 1", "'version':  2"))
        mesh["k0"].restart()
        assert mesh["k0"].execute("version").result == 2


def test_a_preload_that_ends_the_template_costs_no_kernel(tmp_path: Path) -> None:
    write(tmp_path, "works", "@hookimpl\ndef pyrokernel_add_names(): return {'here': 1}\n")
    write(tmp_path, "ends", "import os\n@hookimpl\ndef pyrokernel_preload(): os._exit(3)\n")
    with pk.local(2, plugins_dir=str(tmp_path), plugins={"ends": {"preload": True}}) as mesh:
        assert mesh["k1"].execute("here").result == 1


@pytest.mark.parametrize(
    "lines",
    ["[pyrokernel]\nx =\n", "[pyrokernel]\nx = !!!\n", "[pyrokernel]\nno sign\n", "[pyrokernel]\n\x1b[31m = os\n"],
)
def test_a_broken_entry_point_costs_itself_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: str) -> None:
    info = tmp_path / "broken-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    (info / "entry_points.txt").write_text(lines)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    with pk.local(1) as mesh:
        assert mesh["k0"].execute("6 * 7").result == 42
        assert all(not info.loaded for info in mesh["k0"].plugins() if info.distribution == "broken")
