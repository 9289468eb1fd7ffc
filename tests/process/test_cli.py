"""The command line on real processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_until

from pyrokernel.cli import ExitCode
from pyrokernel.host.processes import is_same, start_time

Served = Any  # tests/process/conftest.py


@contextlib.contextmanager
def start(served: Served, *arguments: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Run a command line beside the test; it is ended if the test has not seen its end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pyrokernel", *arguments],
        env={**served.environ, "PYTHONUNBUFFERED": "1"},
        **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def ps(served: Served) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in json.loads(served.cli("ps", "--json").stdout)}


def test_run_shows_output_by_kernel_and_ends_with_a_code(served: Served, tmp_path: Path) -> None:
    done = served.cli("run", "-c", "print('hi'); import sys; print('err', file=sys.stderr); 6 * 7")
    assert sorted(done.stdout.splitlines()) == ["k0: 42", "k0: hi", "k1: 42", "k1: hi"]
    assert sorted(done.stderr.splitlines()) == ["k0: err", "k1: err"]

    script = tmp_path / "script.py"
    script.write_text("def f():\n    raise ValueError('no')\nf()\n")
    done = served.cli("run", "-k", "k1", str(script), check=False)
    assert done.returncode == ExitCode.CODE_RAISED
    assert f'File "{script}", line 2, in f' in done.stderr
    assert "    raise ValueError('no')" in done.stderr
    assert done.stderr.endswith("ValueError: no\n")

    assert served.cli("run", "-c", "import sys; sys.exit(0)", check=False).returncode == ExitCode.OK
    assert served.cli("run", "-c", "import sys; sys.exit(3)", check=False).returncode == 3
    assert served.cli("run", "-k", "k9", "-c", "1", check=False).returncode == ExitCode.NO_KERNEL
    died = served.cli("run", "-k", "k1", "-c", "import os; os._exit(3)", check=False)
    assert died.returncode == ExitCode.KERNEL_DIED
    assert "exited with code 3" in died.stderr


def test_run_on_a_private_mesh_leaves_nothing(places: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pyrokernel", "run", "--local", "2", "-"],
        input="print(sum(range(10)))",
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
        env={**os.environ, **{f"PYROKERNEL_{name.upper()}": value for name, value in places.items()}},
    )
    assert sorted(done.stdout.splitlines()) == ["k0: 45", "k1: 45"]
    assert not os.path.exists(places["runtime_dir"])


def test_events_for_scripts(served: Served) -> None:
    done = served.cli("run", "-k", "k0", "--json", "-c", "print(1); 2")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["kind"] for event in events] == ["queued", "started", "output", "result", "ended"]
    assert {event["kernel"] for event in events} == {"k0"}


def test_ctrl_c_interrupts_the_cells_and_shows_receipts(served: Served) -> None:
    with start(served, "run", "-c", "import time; print('on'); time.sleep(60)") as run:
        assert run.stdout
        assert {run.stdout.readline() for _ in range(2)} == {"k0: on\n", "k1: on\n"}
        run.send_signal(signal.SIGINT)
        _, err = run.communicate(timeout=20)
    assert run.returncode == ExitCode.INTERRUPTED
    # A machine under load may let the host do it, and the receipt says so: "k0: interrupted (by its host)".
    for line in ("k0: interrupted", "k1: interrupted", "k0: KeyboardInterrupt"):
        assert any(found.startswith(line) for found in err.splitlines()), err
    assert served.cli("run", "-k", "k0", "-c", "print('well')").stdout == "well\n"


def test_a_detached_cell_is_followed_by_logs_to_its_end(served: Served) -> None:
    source = "import time\nfor i in range(5):\n    print('line', i)\n    time.sleep(0.1)\ni"
    cell = served.cli("run", "-k", "k0", "--detach", "-c", source).stdout.strip()
    done = served.cli("logs", "k0", "--cell", cell[:8], "-f")
    assert done.stdout == "line 0\nline 1\nline 2\nline 3\nline 4\n4\n"
    assert served.cli("logs", "k0", "--cell", cell, "-n", "2").stdout == "line 4\n4\n"
    assert ">>> import time" in served.cli("logs", "k0").stdout
    assert served.cli("logs", "k0", "--cell", "ffff", check=False).returncode == ExitCode.NO_KERNEL


def test_a_timeout_leaves_the_cell_running_and_interrupt_ends_it(served: Served) -> None:
    done = served.cli("run", "-k", "k0", "--timeout", "0.3", "-c", "import time; time.sleep(60)", check=False)
    assert done.returncode == ExitCode.TIMEOUT
    assert "logs k0 --cell" in done.stderr
    row = ps(served)["k0"]
    assert (row["status"], row["running"]["source"]) == ("busy", "import time; time.sleep(60)")
    assert served.cli("interrupt", "k0").stdout == "k0: interrupted\n"
    assert json.loads(served.cli("interrupt", "k0", "k1", "--json").stdout)[1]["outcome"] == "not running"


def test_logs_of_the_dead_can_be_read_and_following_goes_on_with_the_next(served: Served) -> None:
    before = ps(served)["k0"]
    with start(served, "logs", "k0", "-f") as logs:
        assert logs.stdout
        served.cli("run", "-k", "k0", "-c", "print('last words')")
        assert any(line == "last words\n" for line in iter(logs.stdout.readline, ""))
        os.kill(before["pid"], signal.SIGKILL)
        wait_until(lambda: ps(served)["k0"]["instance"] != before["instance"])
        served.cli("run", "-k", "k0", "-c", "print('first words')")
        assert logs.stderr
        assert any(line == "first words\n" for line in iter(logs.stdout.readline, "")), logs.stderr.read()
    told = served.cli("logs", "k0").stderr
    assert told.startswith("this life of k0 is ")
    assert f"the one before it (see pyrokernel logs k0 --instance {before['instance'][:8]}): killed by SIGKILL" in told
    lives = json.loads(served.cli("logs", "k0", "--lives", "--json").stdout)
    assert {life["instance"]: life["started"] for life in lives}[before["instance"]] == before["started"]
    past = served.cli("logs", "k0", "--instance", before["instance"][:6]).stdout
    assert "last words" in past
    assert "first words" not in past
    served.cli("stop")
    on_disk = served.cli("logs", "k0", "--lives", "--json").stdout
    assert {life["instance"]: life["started"] for life in json.loads(on_disk)}[before["instance"]] == before["started"]
    on_disk = served.cli("logs", "k0")
    assert "first words" in on_disk.stdout
    assert "on disk" in on_disk.stderr


def test_restart_respects_protection_and_stop_by_name_leaves_the_rest(served: Served) -> None:
    served.cli("serve", "--name", "camera", "--tag", "optics", "--protected")
    before = ps(served)
    assert before["camera"]["tags"] == ["optics"]
    refused = served.cli("restart", "camera", check=False)
    assert refused.returncode == ExitCode.REFUSED
    assert "protected: camera" in refused.stderr
    assert "--force" in refused.stderr
    served.cli("restart", "tag:optics", "k0", "--force")
    after = ps(served)
    assert after["camera"]["instance"] != before["camera"]["instance"]
    assert after["k1"]["instance"] == before["k1"]["instance"]
    for words in (["stop", "camera", "k0"], ["stop"]):
        refused = served.cli(*words, check=False)
        assert refused.returncode == ExitCode.REFUSED
        assert "camera" in refused.stderr
    assert list(ps(served)) == ["camera", "k0", "k1"]
    assert "stopped 2 kernels" in served.cli("stop", "camera", "k0", "--force").stdout
    assert list(ps(served)) == ["k1"]


def test_a_second_serve_joins_and_a_living_name_is_refused(served: Served) -> None:
    done = served.cli("serve", "-n", "3")
    assert "joined" in done.stderr
    assert "already running, left as they are: k0-k1" in done.stderr
    assert "started: k2" in done.stdout
    before = ps(served)
    assert list(before) == ["k0", "k1", "k2"]
    again = served.cli("serve", "-n", "3", "--detach")
    assert "started nothing; for more: a higher -n" in again.stdout
    assert {name: row["pid"] for name, row in ps(served).items()} == {name: row["pid"] for name, row in before.items()}
    taken = served.cli("serve", "--name", "k0", check=False)
    assert taken.returncode == ExitCode.REFUSED
    assert len(taken.stderr.splitlines()) == 2


def test_a_mesh_file_declares_kernels_and_is_joined_by_what_is_missing(
    places: dict[str, str], served_at: Callable[..., Served], tmp_path: Path
) -> None:
    file = tmp_path / "lab.toml"
    file.write_text('mesh = "lab"\n[[kernel]]\nname = "camera"\ntags = ["optics"]\n')
    served = served_at(places, str(file))
    served.environ["PYROKERNEL_MESH"] = "lab"
    assert list(ps(served)) == ["camera"]
    with file.open("a") as stream:
        stream.write('[[kernel]]\nname = "worker"\ncount = 2\n')
    done = served.cli("serve", str(file))
    assert "left as they are: camera" in done.stderr
    assert list(ps(served)) == ["camera", "worker0", "worker1"]


def test_serve_in_the_foreground_ends_with_ctrl_c_and_leaves_its_kernels(served: Served) -> None:
    served.cli("stop")
    with start(served, "serve", "-n", "1") as host:
        assert host.stdout
        assert any("Ctrl-C" in line for line in iter(host.stdout.readline, ""))
        pid = ps(served)["k0"]["pid"]
        host.send_signal(signal.SIGINT)
        out, _ = host.communicate(timeout=20)
    assert host.returncode == ExitCode.OK
    assert "pyrokernel stop" in out
    without = served.cli("ps", check=False)
    assert without.returncode == ExitCode.NO_MESH
    assert "(k0)" in without.stderr
    well = served.cli("doctor", "--json", check=False)
    assert well.returncode == ExitCode.UNWELL
    (finding,) = [found for found in json.loads(well.stdout)["findings"] if found["level"] == "wrong"]
    assert finding["remedy"] == "pyrokernel serve --detach"
    served.serve()
    assert ps(served)["k0"]["pid"] == pid


def test_stop_ends_kernels_without_a_host_and_leaves_no_file(served: Served, places: dict[str, str]) -> None:
    started = {row["pid"]: start_time(row["pid"]) for row in ps(served).values()}
    os.kill(served.host_pid(), signal.SIGKILL)
    done = served.cli("stop")
    assert "stopped 2 kernels: k0-k1" in done.stdout
    # Nobody need have collected them: they were children of the host that was killed.
    assert not any(is_same(pid, at) for pid, at in started.items())
    assert os.listdir(places["runtime_dir"]) == []
    assert served.cli("stop", check=False).returncode == ExitCode.NO_MESH


def test_doctor_times_each_kernel_and_finds_a_mesh_well(served: Served) -> None:
    report = json.loads(served.cli("doctor", "--json").stdout)
    assert report["well"]
    found = {finding["about"]: finding for finding in report["findings"]}
    assert {"name server", "host", "kernel k0", "kernel k1"} <= set(found)
    assert "answers in" in found["kernel k0"]["text"]


def test_a_reader_that_leaves_is_no_error_message(served: Served) -> None:
    with start(served, "run", "-k", "k0", "-c", "for i in range(200_000): print(i)") as run:
        assert run.stdout
        assert run.stderr
        run.stdout.readline()
        run.stdout.close()
        assert run.wait(20) == ExitCode.PIPE_CLOSED
        assert run.stderr.read() == ""
        run.stdout = None


@pytest.mark.skipif(sys.platform != "linux", reason="pseudo-terminals differ")
def test_input_is_answered_at_the_terminal(served: Served) -> None:
    ours, theirs = os.openpty()
    try:
        with start(served, "run", "-k", "k0", "-c", "'hello ' + input('who? ')", stdin=theirs) as run:
            assert run.stdout
            assert run.stdout.read(5) == "who? "
            os.write(ours, b"world\n")
            out, _ = run.communicate(timeout=20)
        assert out.endswith("'hello world'\n")
    finally:
        os.close(ours)
        os.close(theirs)
