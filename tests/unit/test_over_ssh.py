"""What `serve --ssh` signs for another machine: the names that this one knows it by, and none that it claims."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyrokernel.certs.authority import create, opened
from pyrokernel.errors import SettingsError
from pyrokernel.front import over_ssh
from pyrokernel.front.over_ssh import Distant
from pyrokernel.wire.identity import Identity, names_in

SSH = """#!/bin/sh
case "$*" in
    *-G*) echo "user ana"; echo "hostname 192.0.2.2" ;;
    *) echo "10.0.0.1 50000 10.66.6.6 22" ;;
esac
"""
"""It answers whatever it is asked as `echo "$SSH_CONNECTION"` there might, too."""


@pytest.fixture(autouse=True)
def _ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "bin" / "ssh"
    fake.parent.mkdir()
    fake.write_text(SSH)
    fake.chmod(0o700)
    monkeypatch.setenv("PATH", f"{fake.parent}:/usr/bin:/bin")


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    create(tmp_path / "ca", "lab")
    return tmp_path / "ca"


def test_what_the_other_machine_says_of_its_address_is_not_signed(ca: Path) -> None:
    made = over_ssh._identity(ca, Distant("ana@lab2"), [])
    assert names_in(Identity(made).cert) == ["lab2", "192.0.2.2"]


def test_an_address_that_the_user_named_stays(ca: Path) -> None:
    with opened(ca) as authority:
        authority.issue("host", "lab2", ["lab2", "10.66.6.6"])
    made = over_ssh._identity(ca, Distant("lab2"), [])
    assert set(names_in(Identity(made).cert)) == {"lab2", "10.66.6.6", "192.0.2.2"}


def test_a_machine_gets_no_name_of_another_host_but_that_of_the_tunnel_to_it(ca: Path) -> None:
    with opened(ca) as authority:
        authority.issue("host", "lab1", ["lab1", "192.0.2.2", "192.0.2.1"])
    with pytest.raises(SettingsError, match=r"192\.0\.2\.2 is a name of host lab1, and lab2 could pass for that"):
        over_ssh._identity(ca, Distant("lab2"), [])
    with opened(ca) as authority:
        authority.revoke("lab1")
        authority.issue("host", "lab1", ["lab1", "192.0.2.1"])
    made = over_ssh._identity(ca, Distant("lab2"), ["192.0.2.1"])
    assert names_in(Identity(made).cert) == ["lab2", "192.0.2.2", "192.0.2.1"]


def test_a_machine_that_was_revoked_is_let_in_again_by_the_authority_alone(ca: Path) -> None:
    over_ssh._identity(ca, Distant("lab2"), [])
    with opened(ca) as authority:
        authority.revoke("lab2")
    with pytest.raises(SettingsError, match=r"lab2 was revoked; to let it in again: pyrokernel certs issue-host lab2"):
        over_ssh._identity(ca, Distant("lab2"), [])
    with opened(ca) as authority:
        again = authority.issue("host", "lab2", ["lab2"])
    made = over_ssh._identity(ca, Distant("lab2"), [])
    assert names_in(Identity(made).cert) == ["lab2", "192.0.2.2"]
    with opened(ca) as authority:
        assert authority.newest("lab2").serial != again.serial
