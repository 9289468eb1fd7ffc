"""The address by which others reach a host: where it is said, and what its certificate is for."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from certificates import Authority
from ports import free_port

from pyrokernel.cli import ExitCode, main
from pyrokernel.errors import KernelUnreachableError, MachineLostError, NameServerNotFoundError, SettingsError
from pyrokernel.front import joining
from pyrokernel.front.joining import _name_of, check_covered
from pyrokernel.gateway.gateway import _listen_tcp
from pyrokernel.settings import Settings
from pyrokernel.wire.identity import Identity
from pyrokernel.wire.remote import _connect


@pytest.fixture
def identity(tmp_path: Path) -> Identity:
    return Identity(
        Authority(tmp_path / "ca").identity("host", "lab1", ["lab1.example.org", "2001:db8::1", "127.0.0.1"])
    )


@pytest.mark.parametrize(
    "listen", ["127.0.0.1:9191", "[2001:db8::1]:9191", "[2001:DB8:0::1]:9191", "LAB1.example.org:9191"]
)
def test_an_address_of_the_certificate_is_right_however_it_is_written(identity: Identity, listen: str) -> None:
    check_covered(Settings(listen=listen), identity)


@pytest.mark.parametrize(
    "listen", ["192.168.1.5", ":9191", "lab1:", "lab1:port", "lab1:0", "lab1:70000", "2001:db8::1"]
)
def test_an_address_without_host_or_port_is_told_as_such(identity: Identity, listen: str) -> None:
    for check in (lambda: check_covered(Settings(listen=listen), identity), lambda: _listen_tcp(listen)):
        with pytest.raises(SettingsError, match=f"listen='{listen}': use HOST:PORT, such as"):
            check()


@pytest.mark.parametrize("everywhere", ["0.0.0.0:9191", "[::]:9191", ":::9191"])
def test_who_listens_at_all_addresses_is_reached_by_the_name_of_the_machine(
    identity: Identity, everywhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "lab9")
    with pytest.raises(SettingsError, match=r"not for lab9, .* choose one of its names with --advertise HOST:PORT"):
        check_covered(Settings(listen=everywhere), identity)
    check_covered(Settings(listen=everywhere, advertise="lab1.example.org:9191"), identity)


def test_the_name_by_which_an_address_is_reached_can_be_listened_at(identity: Identity) -> None:
    assert _name_of("2001:db8::1", identity) == "[2001:db8::1]"
    assert _name_of("127.0.0.1", identity) == "127.0.0.1"
    assert _name_of("2001:db8::7", identity) == "[2001:db8::7]"  # for which there is no name: that is said later


def test_a_port_in_use_and_an_address_of_others_are_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=rf"port {port} of 127\.0\.0\.1 is in use; name another one \(--listen"):
            _listen_tcp(f"127.0.0.1:{port}")
    with pytest.raises(SettingsError, match=r"no address for the name lab1\.invalid .*; listen at an address"):
        _listen_tcp("lab1.invalid:9191")
    with pytest.raises(KernelUnreachableError, match=r"at lab1\.invalid:9191: .* no address .*serve --advertise"):
        _connect("lab1.invalid", 9191, 5.0)
    with pytest.raises(SettingsError, match=r"192\.0\.2\.1 is no address of this machine; .* --advertise"):
        _listen_tcp("192.0.2.1:9191")


def test_of_an_address_that_nobody_has_it_is_not_said_what_becomes_of_its_cells(
    monkeypatch: pytest.MonkeyPatch, identity: Identity
) -> None:
    def dial(host: str, port: int, *_: object) -> None:
        raise MachineLostError(machine=f"{host}:{port}", reason="timed out")

    monkeypatch.setattr(joining, "dial", dial)
    with pytest.raises(NameServerNotFoundError) as refused:
        joining.joining(Settings(host_certs=str(identity.directory)), "10.77.0.9:9191")
    assert "at 10.77.0.9:9191 (nothing is heard of it: timed out); see there" in str(refused.value)
    assert "cells" not in str(refused.value)
    assert "without a port" not in str(refused.value)
    with pytest.raises(NameServerNotFoundError, match=r"lab1 without a port is 9090, .* it listens: lab1:9191, say"):
        joining.joining(Settings(host_certs=str(identity.directory)), "lab1")


def test_a_listening_address_of_the_configuration_is_checked_as_that_of_the_option(
    identity: Identity, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {
        "RUNTIME_DIR": tmp_path / "r",
        "STATE_DIR": tmp_path / "s",
        "LISTEN": f"127.0.0.2:{free_port()}",
        "HOST_CERTS": identity.directory,
    }.items():
        monkeypatch.setenv(f"PYROKERNEL_{name}", str(value))
    assert main(["serve", "--detach", "-n", "1"]) == ExitCode.USAGE
    assert "not for 127.0.0.2, by which others would reach this machine" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()
