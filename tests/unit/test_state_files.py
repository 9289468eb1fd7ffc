"""Files of large values are used again, and never while somebody reads, writes, or may yet ask for them."""

from __future__ import annotations

import fcntl
import mmap
import os
import threading
import time
from pathlib import Path

import pytest

from pyrokernel.errors import AccessRefusedError, ProtocolError, StateStorageError
from pyrokernel.state import files as files_module
from pyrokernel.state.files import Files
from pyrokernel.wire.mapped import layout


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path / "s")


def spares(files: Files) -> list[str]:
    return sorted(path.name for path in files._spares.iterdir())


def read(path: Path) -> mmap.mmap:
    """Map a file as readers do: with a shared lock on the descriptor that the map keeps."""
    with path.open("rb") as stream:
        fcntl.flock(stream.fileno(), fcntl.LOCK_SH)
        return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)


def test_parts_begin_at_multiples_of_64(files: Files) -> None:
    assert layout([3, 0, 64, 1]) == ([0, 64, 64, 128], 129)
    name = files.write([b"abc", b"", b"x" * 64, b"y"])
    data = (files.values / name).read_bytes()
    assert (data[:3], data[64:128], data[128:]) == (b"abc", b"x" * 64, b"y")


def test_a_file_without_a_use_is_written_again(files: Files) -> None:
    first = files.write([b"a" * 100_000])
    inode = (files.values / first).stat().st_ino
    files.release(first)
    second = files.write([b"b" * 90_000])
    assert (files.values / second).stat().st_ino == inode
    assert spares(files) == []


def test_a_file_that_somebody_maps_is_never_written_again(files: Files) -> None:
    name = files.write([b"a" * 100_000])
    view = read(files.values / name)
    files.release(name)
    for _ in range(3):
        files.write([b"b" * 100_000])
    assert view[:] == b"a" * 100_000
    view.close()
    inodes = {path.stat().st_ino for path in files._spares.iterdir()}
    assert (files.values / files.write([b"c" * 100_000])).stat().st_ino in inodes


def test_a_file_that_another_process_maps_is_never_written_again(files: Files) -> None:
    name = files.write([b"a" * 100_000])
    go, going = os.pipe()
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        view = read(files.values / name)
        os.write(told, b"1")
        os.read(go, 1)
        os._exit(0 if view[:] == b"a" * 100_000 else 1)
    os.read(ready, 1)
    files.release(name)
    for _ in range(3):
        files.write([b"b" * 100_000])
    os.write(going, b"1")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    for descriptor in (go, going, ready, told):
        os.close(descriptor)


def test_a_backup_keeps_its_files(files: Files, tmp_path: Path) -> None:
    name = files.write([b"a" * 100_000])
    os.link(files.values / name, tmp_path / "backup")
    files.release(name)
    files.write([b"b" * 100_000])
    assert (tmp_path / "backup").read_bytes() == b"a" * 100_000


def test_a_file_of_two_rows_is_used_again_after_both(files: Files) -> None:
    first = files.write([b"a" * 100_000])
    second = files.duplicate(first)
    files.release(first)
    files.write([b"b" * 100_000])
    assert (files.values / second).read_bytes() == b"a" * 100_000
    files.release(second)
    assert len(spares(files)) == 1


def test_what_is_released_during_a_backup_stays_until_its_end(files: Files) -> None:
    name = files.write([b"a" * 100_000])
    with files.holding():
        files.release(name)
        assert (files.values / name).exists()
    assert not (files.values / name).exists()


def test_a_backup_may_end_while_files_are_handed_out(files: Files) -> None:
    """It lets go of them in a thread of its own."""
    failures: list[BaseException] = []
    over = threading.Event()

    def back_up() -> None:
        try:
            while not over.is_set():
                with files.holding():
                    pass
                for path in files._spares.iterdir():
                    if not path.name.startswith("staged-"):
                        path.unlink(missing_ok=True)
        except BaseException as error:  # noqa: BLE001  it is told below
            failures.append(error)

    thread = threading.Thread(target=back_up)
    thread.start()
    for _ in range(500):
        files.release(files.write([b"a" * 1000]))
    over.set()
    thread.join()
    assert failures == []


def test_spares_are_bounded(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_module, "SPARE_BYTES", 250_000)
    names = [files.write([b"a" * 100_000]) for _ in range(5)]
    large = files.write([b"a" * 200_000])
    for name in (large, *names):
        files.release(name)
    assert len(spares(files)) == 2
    assert not any(files.values.iterdir())


def test_a_file_that_was_handed_out_survives_the_service_for_a_while(files: Files, tmp_path: Path) -> None:
    """Its writer asks the next service to carry out the write, which may have got as far as to the value's name."""
    staged, begun = files.stage(10), files.stage(10)
    for name in (staged, begun):
        files.path_of(name).write_bytes(b"0123456789")
    adopted = files.adopt(begun, [10])
    old = files.stage(10)
    os.utime(files.path_of(old), (1, 1))
    again = Files(tmp_path / "s")
    again.clean(used=set())
    assert not any(again.values.iterdir())
    assert {again.adopt(begun, [10]), again.adopt(staged, [10])} == {adopted, staged.removeprefix("staged-")}


def test_a_file_that_nobody_comes_back_for_is_removed(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    old = files.stage(10)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + files_module.STAGED_SECONDS + 1)
    new = files.stage(10)
    assert not files.path_of(old).exists()
    assert files.path_of(new).exists()


def test_a_file_that_is_given_up_is_not_handed_to_others(files: Files) -> None:
    """Its client may have another thread, or a child, that still writes into it."""
    staged = files.stage(100_000)
    with files.path_of(staged).open("wb") as stream:
        files.drop(staged)
        name = files.write([b"a" * 100_000])
        stream.write(b"b" * 100_000)
    assert (files.values / name).read_bytes() == b"a" * 100_000
    files.drop("staged-never")


def test_undoing_an_adoption_lets_it_be_done_again(files: Files) -> None:
    staged = files.stage(3)
    files.path_of(staged).write_bytes(b"abc")
    files.give_back(staged, files.adopt(staged, [3]))
    assert (files.values / files.adopt(staged, [3])).read_bytes() == b"abc"
    files.give_back("staged-x", "no such value")


@pytest.mark.parametrize("name", ["", "staged-none", "state.db", "../state.db", "staged-/../../state.db", "a\0b"])
def test_only_what_was_handed_out_is_adopted(files: Files, name: str) -> None:
    with pytest.raises(ProtocolError):
        files.adopt(name, [0])


def test_a_file_that_is_too_short_is_refused(files: Files) -> None:
    staged = files.stage(10)
    files.path_of(staged).write_bytes(b"123")
    with pytest.raises(ProtocolError, match="shorter"):
        files.adopt(staged, [4])


def test_a_disk_that_is_full_is_a_storage_error(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    before = spares(files)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(StateStorageError, match="No space left"):
            files.write([b"a" * 100_000])
        patch.setattr(os, "open", full)
        with pytest.raises(StateStorageError, match="No space left"):
            files.stage(10)
    assert spares(files) == before
    assert not any(files.values.iterdir())


def test_a_directory_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    Files(tmp_path / "s")
    os.chmod(tmp_path / "s" / "values", 0o777)
    with pytest.raises(AccessRefusedError, match="chmod 700"):
        Files(tmp_path / "s")
