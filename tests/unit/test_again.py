"""Starting this interpreter again: processes of our own, waited for without `subprocess`."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pyrokernel.again import Child, read_end, scratch_file, show_as, start_python


def started(source: str, output: int | None = None, passed: tuple[int, ...] = ()) -> Child:
    return Child(start_python([sys.executable, "-c", source], os.environ, output=output, passed=passed))


def test_a_child_that_ends_is_waited_for_and_says_how() -> None:
    assert started("raise SystemExit(7)").wait(20) == 7


def test_a_child_that_goes_on_is_given_up_after_the_timeout_and_can_be_killed() -> None:
    child = started("import signal; signal.pause()")
    assert child.wait(0.05) is None
    child.kill()
    assert child.wait(20) == -signal.SIGKILL
    child.kill()  # there is none any more, and nobody else is hit
    assert child.wait(0) == -signal.SIGKILL


def test_a_child_that_somebody_else_has_collected_counts_as_ended() -> None:
    child = started("pass")
    os.waitpid(child.pid, 0)
    assert child.wait(20) == 0
    child.kill()


def test_a_child_is_waited_for_when_this_process_has_a_thousand_descriptors(
    many_descriptors: Callable[[], None],
) -> None:
    """A selector that takes no descriptors above 1023 would fail here."""
    many_descriptors()
    assert started("import time; time.sleep(0.1)").wait(20) == 0


def test_a_child_is_waited_for_when_this_process_has_no_descriptor_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    assert started("import time; time.sleep(0.1); raise SystemExit(3)").wait(20) == 3


@pytest.fixture
def many_descriptors() -> object:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2000:
        pytest.skip("this system gives no 2000 descriptors")
    opened: list[int] = []

    def open_them() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2000), hard))
        while not opened or opened[-1] < 1100:
            opened.append(os.open(os.devnull, os.O_RDONLY))

    yield open_them
    for descriptor in opened:
        os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_child_leads_a_session_reads_nothing_and_writes_where_it_was_told() -> None:
    output = scratch_file()
    try:
        source = "import os, sys; print(os.getsid(0) == os.getpid(), repr(sys.stdin.read())); sys.stderr.write('heard')"
        assert started(source, output).wait(20) == 0
        assert read_end(output) in ("True ''\nheard", "heardTrue ''")
    finally:
        os.close(output)


def test_only_what_is_passed_is_open_in_a_child() -> None:
    first, second = os.pipe()
    output = scratch_file()
    try:
        source = (
            "import os\n"
            "def is_open(number):\n"
            "    try:\n        return bool(os.fstat(number))\n    except OSError:\n        return False\n"
            f"print(is_open({first}), is_open({second}))"
        )
        assert started(source, output, passed=(second,)).wait(20) == 0
        assert read_end(output) == "False True"
        assert not os.get_inheritable(second)
    finally:
        for descriptor in (first, second, output):
            os.close(descriptor)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows it")
def test_a_process_can_show_a_name() -> None:
    before = Path("/proc/self/comm").read_text()
    try:
        show_as("pk:a-name-that-is-too-long")
        assert Path("/proc/self/comm").read_text() == "pk:a-name-that-\n"
    finally:
        show_as(before.strip())
