"""Where a host keeps its files, which disks it refuses, and that it leaves nothing behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pyrokernel.errors import AccessRefusedError, SettingsError
from pyrokernel.host.places import KEPT_INSTANCES, Places, filesystem_type, refuse_network_filesystem
from pyrokernel.settings import Settings

MOUNTS = r"""sysfs /sys sysfs rw 0 0
/dev/vda / ext4 rw 0 0
tmpfs /tmp tmpfs rw 0 0
server:/home /home nfs4 rw 0 0
/dev/vdb /home/local ext4 rw 0 0
//server/my\040files /mnt/my\040files cifs rw 0 0
lab /mnt/lab fuse.sshfs rw 0 0
old /mnt/over ext4 rw 0 0
new /mnt/over lustre rw 0 0
short line
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/tmp/x", "tmpfs"),
        ("/tmpfile", "ext4"),
        ("/home/ada/.local/state", "nfs4"),
        ("/home/local/ada", "ext4"),
        ("/mnt/my files/x", "cifs"),
        ("/mnt/over/x", "lustre"),
    ],
)
def test_the_longest_mount_point_counts_and_the_last_of_equals(path: str, kind: str) -> None:
    assert filesystem_type(Path(path), MOUNTS) == kind


@pytest.mark.parametrize("path", ["/home/ada", "/mnt/my files", "/mnt/lab/deep/down", "/mnt/over"])
def test_network_disks_are_refused_with_the_setting_to_change(path: str) -> None:
    with pytest.raises(SettingsError, match=r"state_dir \(PYROKERNEL_STATE_DIR\)"):
        refuse_network_filesystem(Path(path), "state_dir", MOUNTS)


@pytest.mark.parametrize("path", ["/", "/tmp/x", "/home/local"])
def test_disks_of_this_machine_are_taken(path: str) -> None:
    refuse_network_filesystem(Path(path), "state_dir", MOUNTS)


def test_a_link_to_a_network_disk_does_not_hide_it(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/home/ada")
    assert filesystem_type(tmp_path / "link" / "new", MOUNTS) == "nfs4"


def test_this_machine_knows_what_its_root_is() -> None:
    assert filesystem_type(Path("/")) or not Path("/proc/self/mounts").exists()


@pytest.fixture
def places(tmp_path: Path) -> Places:
    found = Places.of(Settings(runtime_dir=str(tmp_path / "r"), state_dir=str(tmp_path / "s")))
    found.create()
    return found


def test_directories_are_private(places: Places) -> None:
    for directory in (places.runtime, places.state, places.records):
        assert directory.stat().st_mode & 0o077 == 0


def test_a_directory_that_others_may_enter_is_refused(places: Places) -> None:
    places.runtime.chmod(0o755)
    with pytest.raises(AccessRefusedError, match="chmod 700"):
        places.create()


def test_a_path_too_long_for_sockets_is_refused_with_the_setting_to_change(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="runtime_dir"):
        Places.of(Settings(runtime_dir=str(tmp_path / ("x" * 80)))).create()


def test_old_journals_are_forgotten_and_the_living_one_never(places: Places) -> None:
    for number in range(KEPT_INSTANCES + 3):
        directory = places.journal("k0", f"{number:016x}")
        directory.mkdir(parents=True)
        os.utime(directory, (number, number))
    oldest = f"{0:016x}"
    places.forget_old_journals("k0", living=oldest)
    left = [path.name for path in places.journals("k0")]
    assert len(left) == KEPT_INSTANCES + 1
    assert left[-1] == oldest
    assert left[0] == f"{KEPT_INSTANCES + 2:016x}"


def test_a_kernel_without_journals_has_none(places: Places) -> None:
    assert places.journals("nobody") == []


def test_the_end_of_a_mesh_leaves_only_its_state(places: Places, tmp_path: Path) -> None:
    places.lock.touch()
    places.deaths.touch()
    places.remove(private=False)
    assert not places.runtime.exists()
    assert places.deaths.exists()


def test_the_end_of_a_private_mesh_leaves_nothing(tmp_path: Path) -> None:
    places = Places.of(Settings(runtime_dir=str(tmp_path / "r")), private=True)
    places.create()
    places.journal("k0", "0" * 16).mkdir(parents=True)
    places.remove(private=True)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_keeps_no_host_from_joining(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It would never have reported that it runs."""
    settings = Settings(runtime_dir=str(tmp_path), ns="10.77.0.1:9191")
    places = Places.of(settings)
    places.note_joined(settings)  # there is no such directory
    assert "cannot note in" in caplog.text
    places.runtime.mkdir()
    places.note_joined(settings)
    assert settings.joined["ns"] == Settings(runtime_dir=str(tmp_path)).ns_address == "10.77.0.1:9191"
