"""Figures of matplotlib that are shown in a kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

import pyrokernel as pk

pytest.importorskip("matplotlib")

PNG = b"\x89PNG"


def shown(kernel: pk.Kernel, source: str) -> list[Path]:
    cell = kernel.submit(source)
    cell.reply(timeout=50)
    return [Path(event.data["path"]) for event in cell.events() if event.kind == "figure"]


def test_a_figure_that_is_shown_is_saved_and_announced(kernel: pk.Kernel) -> None:
    source = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()"
    (first,) = shown(kernel, source)
    assert first.read_bytes()[:4] == PNG
    assert first.stat().st_mode & 0o077 == 0 or first.parent.stat().st_mode & 0o077 == 0
    assert shown(kernel, "plt.show()") == []  # shown once, as a window that was closed
    second, third = shown(kernel, "plt.figure(); plt.figure(); plt.show()")
    assert len({first, second, third}) == 3


def test_a_single_figure_is_shown_by_its_own_method(kernel: pk.Kernel) -> None:
    (path,) = shown(kernel, "import matplotlib.pyplot as plt\nfig = plt.figure()\nfig.show()\nplt.close(fig)")
    assert path.read_bytes()[:4] == PNG


def test_a_backend_that_the_user_chose_stays(mesh: pk.Mesh) -> None:
    source = "import os; os.environ['MPLBACKEND'] = 'svg'\nimport matplotlib; matplotlib.get_backend()"
    assert mesh["k1"].execute(source, timeout=50).result == "svg"


def test_programs_that_a_cell_starts_do_not_inherit_it(mesh: pk.Mesh) -> None:
    source = (
        "import matplotlib, subprocess, sys\n"
        "subprocess.run([sys.executable, '-c', 'import matplotlib.pyplot as p; print(p.get_backend())'],"
        " capture_output=True, text=True).stdout.strip().lower()"
    )
    assert mesh["k2"].execute(source, timeout=50).result == "agg"


def test_a_figure_that_cannot_be_saved_is_said_and_the_cell_goes_on(mesh: pk.Mesh) -> None:
    kernel = mesh["k0"]
    (path,) = shown(kernel, "import matplotlib.pyplot as plt\nplt.figure(); plt.show()")
    kernel.push(folder=str(path.parent))
    source = "import os, shutil\nshutil.rmtree(folder); open(folder, 'w').close()\nplt.figure(); plt.show(); 'went on'"
    reply = kernel.execute(source, timeout=50)
    assert reply.result == "went on"
    assert "[figure not saved: " in reply.stderr
    kernel.execute("os.unlink(folder)")
