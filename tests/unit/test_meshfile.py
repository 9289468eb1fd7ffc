"""The mesh file declares kernels; a mistake in it is named with file, kernel and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyrokernel.errors import SettingsError
from pyrokernel.host.meshfile import load_mesh_file
from pyrokernel.messages import KernelSpec


def write(folder: Path, text: str) -> Path:
    path = folder / "lab.toml"
    path.write_text(text)
    return path


def test_a_mesh_file_declares_settings_and_kernels(tmp_path: Path) -> None:
    (tmp_path / "camera.py").touch()
    (tmp_path / "data").mkdir()
    path = write(
        tmp_path,
        """
        mesh = "lab"
        timeout = 3

        [[kernel]]
        name = "camera"
        tags = ["optics"]
        init = "camera.py"
        env = { EXPOSURE = 5, MODE = "fast" }
        cwd = "data"
        preload = ["numpy"]
        protected = true
        memory = "4G"
        journal = "1.5 MiB"
        idle_stop = 60

        [[kernel]]
        name = "worker"
        count = 2
        restart = "never"
        """,
    )
    settings, specs = load_mesh_file(path)
    assert settings == {"mesh": "lab", "timeout": 3}
    assert specs == [
        KernelSpec(
            name="camera",
            tags=("optics",),
            init=str(tmp_path / "camera.py"),
            env={"EXPOSURE": "5", "MODE": "fast"},
            cwd=str(tmp_path / "data"),
            preload=("numpy",),
            protected=True,
            memory_bytes=4 * 2**30,
            journal_bytes=3 * 2**19,
            idle_stop=60.0,
        ),
        KernelSpec(name="worker0", restart="never"),
        KernelSpec(name="worker1", restart="never"),
    ]


def test_absolute_paths_stay_and_home_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, init = tmp_path / "home", tmp_path / "opt" / "k.py"
    (home / "data").mkdir(parents=True)
    init.parent.mkdir()
    init.touch()
    monkeypatch.setenv("HOME", str(home))
    _, specs = load_mesh_file(write(tmp_path, f'[[kernel]]\nname = "k"\ninit = "{init}"\ncwd = "~/data"\n'))
    assert (specs[0].init, specs[0].cwd) == (str(init), str(home / "data"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("mesh = ", ["not valid TOML"]),
        ("mash = 'lab'", ["mash", "mesh"]),
        ("[kernel]\nname = 'k'", ["[[kernel]]"]),
        ("[[kernel]]\ntags = []", ["no name"]),
        ("[[kernel]]\nname = 'camera'\nprelode = ['numpy']", ["camera", "prelode", "preload"]),
        ("[[kernel]]\nname = 'camera'\npreload = 'numpy'", ["camera", "preload", "list"]),
        ("[[kernel]]\nname = 'camera'\nprotected = 'yes'", ["camera", "protected", "bool"]),
        ("[[kernel]]\nname = 'camera'\nthreads = true", ["camera", "threads", "int"]),
        ("[[kernel]]\nname = 'camera'\nmemory = 'lots'", ["camera", "memory", "512M"]),
        ("[[kernel]]\nname = 'camera'\nidle_stop = 'soon'", ["camera", "idle_stop", "2h"]),
        ("[[kernel]]\nname = 'camera'\ninit = 'gone.py'", ["camera", "init", "no file", "/gone.py"]),
        ("[[kernel]]\nname = 'camera'\ncwd = 'gone'", ["camera", "cwd", "no directory", "/gone"]),
        ("[[kernel]]\nname = 'camera'\nenv = { A = [1] }", ["camera", "env"]),
        ("[[kernel]]\nname = 'camera'\nrestart = 'perhaps'", ["camera", "perhaps"]),
        ("[[kernel]]\nname = 'my camera'", ["my camera"]),
        ("[[kernel]]\nname = 'k'\n[[kernel]]\nname = 'k'", ["two kernels"]),
        ("[[kernel]]\nname = 'k1'\n[[kernel]]\nname = 'k'\ncount = 2", ["two kernels", "k1"]),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, words: list[str]) -> None:
    path = write(tmp_path, text)
    with pytest.raises(SettingsError) as caught:
        load_mesh_file(path)
    assert all(word in str(caught.value) for word in words), caught.value
    if "two kernels" not in words:
        assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"gone\.toml"):
        load_mesh_file(tmp_path / "gone.toml")


@pytest.mark.parametrize("key", ["memory", "memory_bytes", "journal", "journal_bytes"])
def test_sizes_are_written_as_on_the_command_line(tmp_path: Path, key: str) -> None:
    _, (spec,) = load_mesh_file(write(tmp_path, f"[[kernel]]\nname = 'k'\n{key} = '512M'\n"))
    assert getattr(spec, f"{key.removesuffix('_bytes')}_bytes") == 2**29


@pytest.mark.parametrize(("value", "seconds"), [("'2h'", 7200), ("'90'", 90), ("90", 90), ("1.5", 1.5)])
def test_times_are_written_as_on_the_command_line(tmp_path: Path, value: str, seconds: float) -> None:
    _, (spec,) = load_mesh_file(write(tmp_path, f"[[kernel]]\nname = 'k'\nidle_stop = {value}\n"))
    assert spec.idle_stop == seconds
