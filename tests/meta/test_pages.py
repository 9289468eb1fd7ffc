"""The pages keep their word: commands are there to be run, examples run and print what stands beside them."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from xml.etree import ElementTree

import pytest

from pyrokernel.host import meshfile
from pyrokernel.messages import KernelSpec
from pyrokernel.settings import ENV_PREFIX, Settings, load, parse_size, parse_span

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("*/README.md"))]
README = (ROOT / "README.md").read_text()
TOUR = "## A tour in ten lines"
SCREENS = ROOT / "docs" / "screens"
SVG = "{http://www.w3.org/2000/svg}"
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text()

LINKS = sorted(
    (str(page.relative_to(ROOT)), link)
    for page in PAGES
    for link in set(re.findall(r"\]\(([^)#:]+)[^):]*\)", page.read_text()))
)


def section(page: str, heading: str) -> str:
    """Return what stands below a heading of a page."""
    _, found, rest = page.partition(heading + "\n")
    assert found, f"there is no section {heading!r}"
    return re.split(r"^## ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def blocks(page: str, language: str) -> list[str]:
    """Return the fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def promised(code: str) -> list[str]:
    """Return what a program says it prints: the text after `# ->`."""
    return re.findall(r"print\(.*# -> (.*)$", code, re.MULTILINE)


def run(code: str, tmp_path: Path) -> list[str]:
    """Run a program as a script of a user who has nothing configured; return the lines it printed."""
    script = tmp_path / "example.py"
    script.write_text(code)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(ENV_PREFIX)}
    mine = {name: str(tmp_path / name.lower()) for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME")}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        cwd=tmp_path,
        env={**clean, **mine, ENV_PREFIX + "RUNTIME_DIR": str(tmp_path / "run"), "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        # A background job of a shell ignores SIGINT and hands that down; an example presses Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()


def keys_of_table(page: str, heading: str) -> list[str]:
    """Return the first column of the table in a section."""
    return re.findall(r"^\| `(\w+)` \|", section(page, heading), re.MULTILINE)


@pytest.mark.slow
def test_the_tour_prints_what_it_says(tmp_path: Path) -> None:
    code = "\n".join(blocks(section(README, TOUR), "python"))
    assert run(code, tmp_path) == promised(code)


@pytest.mark.slow
def test_the_page_of_the_python_api_is_a_program_that_prints_what_it_says(tmp_path: Path) -> None:
    code = "\n".join(blocks((ROOT / "docs" / "api.md").read_text(), "python"))
    assert run(code, tmp_path) == promised(code)


def test_the_tour_is_short_and_says_what_it_prints() -> None:
    code = "\n".join(blocks(section(README, TOUR), "python"))
    lines = [line for line in code.splitlines() if line.strip() and not line.lstrip().startswith(("#", "import "))]
    assert len(lines) <= 10
    assert promised(code)
    compile(code, "README.md", "exec")


def test_two_commands_are_all_there_is_to_do() -> None:
    demo, tests = blocks(section(README, "## Try it"), "sh")[0].splitlines()
    assert demo.startswith("python3 -m venv")
    assert demo.endswith("pyrokernel demo")
    assert tests.startswith("python3 -m venv")
    assert tests.endswith("-m pytest -n 3")


def test_what_else_is_installed_is_so_with_the_environment_activated_too() -> None:
    """Its `python3` has no pip then; the system's `pip3` is found all the same."""
    lines = [line for page in [*PAGES, *ROOT.glob("plugins/*/README.md")] for line in page.read_text().splitlines()]
    told = [line for line in lines if "--python .venv install" in line and not line.startswith("python3 -m venv")]
    assert told
    assert [line for line in told if "pip3 --python" not in line] == []


def test_ci_runs_the_command_that_the_readme_gives() -> None:
    """`.ci/run` takes the line out of the README by a pattern; it must find exactly one."""
    script = (ROOT / ".ci" / "run").read_text()
    pattern = re.search(r"grep -m1 -E '([^']+)' \"\$repo/README.md\"", script)
    assert pattern
    assert len(re.findall(pattern[1], README, re.MULTILINE)) == 1


def test_the_readme_claims_the_python_versions_that_the_package_declares() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    versions = re.findall(r":: (3\.\d+)", " ".join(project["classifiers"]))
    assert project["requires-python"] == f">={versions[0]}"
    assert f"{versions[0]} to {versions[-1]}" in README


def test_every_page_of_docs_is_linked_from_the_readme() -> None:
    assert {page.name for page in (ROOT / "docs").glob("*.md")} <= set(re.findall(r"docs/([\w-]+\.md)", README))


@pytest.mark.parametrize(("page", "link"), LINKS)
def test_every_link_leads_somewhere(page: str, link: str) -> None:
    assert ((ROOT / page).parent / link).exists()


def test_the_page_of_the_shell_shows_every_picture_and_says_what_is_on_it() -> None:
    page = (ROOT / "docs" / "shell.md").read_text()
    shown = re.findall(r"!\[([^\]]+)\]\(screens/([\w-]+\.svg)\)", page)
    assert sorted(name for _, name in shown) == sorted(path.name for path in SCREENS.glob("*.svg"))
    assert page.count("![") == len(shown)


@pytest.mark.parametrize("path", sorted(SCREENS.glob("*.svg")), ids=lambda path: str(path.name))
def test_a_picture_is_small_whole_and_has_a_title(path: Path) -> None:
    assert path.stat().st_size < 40_000
    root = ElementTree.parse(path).getroot()
    assert root.tag == SVG + "svg"
    title = root.find(SVG + "title")
    assert title is not None
    assert title.text
    # Nothing is fetched from anywhere, and nothing of whoever made it is on it.
    text = path.read_text(encoding="utf-8")
    assert "href" not in text
    assert "url(" not in text
    assert "/home/" not in text


def test_the_page_of_settings_lists_each_with_its_variable() -> None:
    names = [field.name for field in dataclasses.fields(Settings)]
    assert keys_of_table(CONFIGURATION, "## Settings") == names
    for name in names:
        assert f"`{ENV_PREFIX}{name.upper()}`" in CONFIGURATION


def test_the_page_of_the_mesh_file_lists_every_key_of_a_kernel() -> None:
    listed = keys_of_table(CONFIGURATION, "## The mesh file")
    fields = {field.name for field in dataclasses.fields(KernelSpec)}
    # A measure has a short name for people and the name of its field; the page says so once.
    short = {key: field for key, (field, _) in meshfile._MEASURES.items() if key not in fields}
    assert sorted(listed) == sorted((fields - set(short.values())) | set(short) | {"count"})
    for field in short.values():
        assert f"`{field}`" in CONFIGURATION


def test_the_mesh_file_on_the_page_can_be_served(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in re.findall(r'^init = "(.+?)"', CONFIGURATION, re.MULTILINE):
        (tmp_path / name).touch()
    path = tmp_path / "lab.toml"
    path.write_text(blocks(section(CONFIGURATION, "## The mesh file"), "toml")[0])
    settings, specs = meshfile.load_mesh_file(path)
    assert load(file=path, environ={}).mesh == settings["mesh"]
    assert [spec.name for spec in specs] == ["camera", "worker0", "worker1", "worker2", "worker3"]


def test_the_configuration_file_on_the_page_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(blocks(section(CONFIGURATION, "## Where they come from"), "toml")[0])
    assert load(file=path, environ={}) != Settings()


def test_sizes_and_times_are_read_as_the_page_spells_them() -> None:
    spelled = section(CONFIGURATION, "## Sizes and times")
    sizes, times = (re.findall(r"`([^`]+)`", line) for line in spelled.splitlines() if line.startswith("- "))
    assert [parse_size(text) for text in sizes]
    assert [parse_span(text) for text in times]
