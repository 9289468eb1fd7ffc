"""The shelf keeps versions whole, and remembers for whom."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pyrokernel.errors import ShipError
from pyrokernel.kernel.shipping import meant_for
from pyrokernel.messages import Shipped
from pyrokernel.shelf import MAX_BYTES, Shelf, check_files, digest_of

FILES = {"lab/__init__.py": b"x = 1\n", "lab/data.txt": b"1"}


def shipped(name: str, digest: str = "0123456789abcdef") -> Shipped:
    return Shipped(name=name, digest=digest, shown=f"{name}.py", main=f"{name}.py")


def test_a_digest_names_the_content_and_nothing_else() -> None:
    assert digest_of(FILES) == digest_of(dict(reversed(FILES.items())))
    assert digest_of(FILES) != digest_of({**FILES, "lab/data.txt": b"2"})
    assert digest_of({"ab": b"c"}) != digest_of({"a": b"bc"})
    assert digest_of({"a": b"", "b": b""}) != digest_of({"a": b""})


def test_a_version_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "shelf")
    digest = digest_of(FILES)
    assert not shelf.has(digest)
    shelf.store(digest, FILES, "lab")
    assert shelf.has(digest)
    assert (shelf.version(digest) / "lab" / "data.txt").read_bytes() == b"1"
    shelf.store(digest, FILES, "lab")
    assert [path.name for path in shelf.folder.iterdir()] == [digest]


def test_two_writers_of_one_version_do_not_disturb_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf, digest = Shelf(tmp_path), digest_of(FILES)
    rename = os.rename

    def late(source: str, target: str) -> None:
        rename(source, target)
        raise FileExistsError(39, "Directory not empty")  # as for whoever comes second

    monkeypatch.setattr(os, "rename", late)
    shelf.store(digest, FILES, "lab")
    assert (shelf.version(digest) / "lab" / "__init__.py").exists()
    assert [path.name for path in tmp_path.iterdir()] == [digest]


def test_what_is_not_as_it_was_sent_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ShipError, match="did not arrive"):
        Shelf(tmp_path).store("0" * 16, FILES, "lab")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ShipError, match="cannot be written"):
        Shelf(tmp_path / "file").store(digest_of(FILES), FILES, "lab")


@pytest.mark.parametrize("path", ["../x.py", "/etc/x.py", "a/../../x.py", "", "a\\b.py", "a\0.py"])
def test_a_path_that_leads_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(ShipError, match="lies outside"):
        check_files({path: b""}, "lab")


def test_too_much_is_refused() -> None:
    with pytest.raises(ShipError, match="64 MiB are the most"):
        check_files({"a.py": bytes(MAX_BYTES + 1)}, "a.py")


@pytest.mark.parametrize("digest", ["", "../..", "0" * 15, "G" * 16, "0" * 64])
def test_only_a_digest_names_a_version(tmp_path: Path, digest: str) -> None:
    with pytest.raises(ShipError, match="no digest"):
        Shelf(tmp_path).version(digest)


def test_kernels_that_start_later_get_what_their_words_say(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf.keep([shipped("common")], ["all"])
    shelf.keep([shipped("big")], ["tag:big", "k7"])
    shelf.keep([shipped("odd")], ["gpu-*"])
    assert [one.name for one in meant_for(shelf.index(), "k0", ())] == ["common"]
    assert [one.name for one in meant_for(shelf.index(), "k7", ())] == ["common", "big"]
    assert [one.name for one in meant_for(shelf.index(), "gpu-1", ("big",))] == ["common", "big", "odd"]


def test_what_was_shipped_last_counts(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf.keep([shipped("a", "1" * 16)], ["all"])
    shelf.keep([shipped("a", "2" * 16)], ["k0"])
    assert [one.digest for one in meant_for(shelf.index(), "k0", ())] == ["2" * 16]
    assert [one.digest for one in meant_for(shelf.index(), "k1", ())] == ["1" * 16]
    shelf.keep([shipped("a", "3" * 16)], ["all"])
    assert [one.digest for one in meant_for(shelf.index(), "k0", ())] == ["3" * 16]
    assert len(shelf.index()) == 1


def test_what_was_given_back_is_forgotten_for_those_who_did(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf.keep([shipped("a"), shipped("b")], ["all"])
    shelf.drop(["a"], ["k0"], ["k0"])
    assert [one.name for one in meant_for(shelf.index(), "k0", ())] == ["b"]
    assert [one.name for one in meant_for(shelf.index(), "k1", ())] == ["a", "b"]
    shelf.drop(["a"], ["all"], ["k0", "k1"])
    assert [one.name for one in meant_for(shelf.index(), "k1", ())] == ["b"]
    shelf.keep([shipped("a")], ["all"])
    assert [one.name for one in meant_for(shelf.index(), "k0", ())] == ["b", "a"]


def test_a_damaged_index_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text("[{")
    with pytest.raises(ShipError, match="remove it"):
        Shelf(tmp_path).index()


def test_versions_nobody_is_to_get_do_not_pile_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyrokernel.shelf._KEPT_VERSIONS", 3)
    shelf = Shelf(tmp_path)
    for number in range(10):
        files = {"a.py": f"x = {number}\n".encode()}
        shelf.store(digest_of(files), files, "a.py")
        os.utime(shelf.version(digest_of(files)), (number, number))
        shelf.keep([shipped("a", digest_of(files))], ["all"])
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 4
    assert shelf.has(digest_of({"a.py": b"x = 9\n"}))
    assert shelf.has(digest_of({"a.py": b"x = 8\n"}))
