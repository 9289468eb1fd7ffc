"""Settings are read once, in a known order, and a mistake is named with what would be right."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pyrokernel.errors import AccessRefusedError, SettingsError
from pyrokernel.settings import (
    JOINED,
    MAX_SOCKET_PATH_BYTES,
    Settings,
    check_name,
    check_private,
    default_runtime_root,
    load,
    parse_size,
    parse_span,
    private_directory,
)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text('mesh = "from-file"\nhost = "from-file"\ntimeout = 3\n[[kernel]]\nname = "camera"\n')
    return path


def test_defaults_need_nothing(tmp_path: Path) -> None:
    assert load(environ={"XDG_CONFIG_HOME": str(tmp_path)}) == Settings()


def test_arguments_beat_the_environment_which_beats_the_file(config: Path) -> None:
    settings = load(
        file=config, environ={"PYROKERNEL_MESH": "from-env", "PYROKERNEL_HOST": "from-env"}, mesh="argument"
    )
    assert (settings.mesh, settings.host, settings.timeout) == ("argument", "from-env", 3.0)


def test_an_argument_of_none_counts_as_not_given(config: Path) -> None:
    assert load(file=config, environ={}, mesh=None).mesh == "from-file"


def test_the_file_is_found_by_variable_or_in_its_usual_place(tmp_path: Path, config: Path) -> None:
    usual = tmp_path / "pyrokernel" / "config.toml"
    usual.parent.mkdir()
    usual.write_text('mesh = "usual"')
    assert load(environ={"XDG_CONFIG_HOME": str(tmp_path)}).mesh == "usual"
    assert load(environ={"XDG_CONFIG_HOME": str(tmp_path), "PYROKERNEL_CONFIG": str(config)}).mesh == "from-file"


def test_settings_survive_the_way_through_the_environment_of_a_child() -> None:
    settings = Settings(mesh="lab", ns="./u:/run/ns.sock", timeout=2.5, portable=True, max_result_bytes=1000)
    assert load(environ=settings.to_env()) == settings


@pytest.mark.parametrize(("text", "value"), [("1", True), ("TRUE", True), ("yes", True), ("0", False), ("", False)])
def test_switches_are_understood_in_words(text: str, value: bool) -> None:
    assert load(environ={"PYROKERNEL_PORTABLE": text, "XDG_CONFIG_HOME": "/nowhere"}).portable is value


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("TIMEOUT", "soon", "setting timeout: 'soon' is not a time"),
        ("PORTABLE", "perhaps", "setting portable: 'perhaps' is not a bool"),
        ("MAX_RESULT_BYTES", "lots", "is not a size"),
        ("TIMEOUT", "0", "timeout must be a finite number above 0"),
        ("MESH", "a/b", "mesh name 'a/b'"),
        ("HOST", "-x", "host name '-x'"),
        ("COLOUR", "red", "unknown setting PYROKERNEL_COLOUR; known are: act_for,"),
    ],
)
def test_a_wrong_value_or_name_is_an_error_that_says_which(name: str, text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load(environ={"PYROKERNEL_" + name: text, "XDG_CONFIG_HOME": "/nowhere"})


def test_an_unknown_argument_is_an_error() -> None:
    with pytest.raises(SettingsError, match="unknown setting colour"):
        load(environ={"XDG_CONFIG_HOME": "/nowhere"}, colour="red")


def test_a_file_with_an_unknown_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('colour = "red"')
    with pytest.raises(SettingsError, match=f"unknown setting colour in {path}"):
        load(file=path, environ={})


def test_a_file_that_is_not_there_or_not_toml_is_named(tmp_path: Path) -> None:
    missing, broken = tmp_path / "missing.toml", tmp_path / "broken.toml"
    broken.write_text("mesh = ")
    with pytest.raises(SettingsError, match=f"cannot read {missing}: No such file"):
        load(file=missing, environ={})
    with pytest.raises(SettingsError, match=f"{broken} is not valid TOML"):
        load(file=broken, environ={})


@pytest.mark.parametrize(
    ("variables", "address"),
    [
        ({"PYRO_NS_HOST": "localhost"}, "localhost:9090"),
        ({"PYRO_NS_HOST": "localhost", "PYRO_NS_PORT": "9999"}, "localhost:9999"),
        ({"PYRO_NS_HOST": "./u:/run/ns.sock"}, "./u:/run/ns.sock"),
        ({"PYRO_NS_HOST": "localhost", "PYROKERNEL_NS": "./u:/own"}, "./u:/own"),
    ],
)
def test_pyros_own_variables_choose_the_name_server_unless_ours_do(variables: dict[str, str], address: str) -> None:
    assert load(environ={**variables, "XDG_CONFIG_HOME": "/nowhere"}).ns_address == address


def test_directories_are_kept_apart_by_mesh_and_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    settings = Settings(mesh="lab", host="pc", runtime_dir="/run/mine")
    assert settings.mesh_runtime_dir == Path("/run/mine/lab")
    assert settings.host_socket == Path("/run/mine/lab/host.sock")
    assert settings.ns_address == "./u:/run/mine/lab/ns.sock"
    assert settings.mesh_state_dir == tmp_path / "pyrokernel" / "lab" / "pc"
    assert Settings(mesh="lab", host="pc", state_dir="/data").mesh_state_dir == Path("/data/lab/pc")


def test_this_machine_has_a_name_that_may_be_used() -> None:
    assert check_name(Settings().host_name, "host")


def test_the_default_place_for_sockets_is_short_and_the_same_each_time() -> None:
    assert default_runtime_root() == default_runtime_root()
    assert len(os.fsencode(default_runtime_root())) + len("/default/kernels/gpu-0.sock") < MAX_SOCKET_PATH_BYTES


def test_dump_lists_every_setting() -> None:
    assert Settings(**Settings(mesh="lab").dump()) == Settings(mesh="lab")


@pytest.mark.parametrize("name", ["", ".", "..", "a b", "a/b", "-x", "x" * 65, "k*", "naïve", "a\n"])
def test_names_that_paths_globs_or_terminals_treat_specially_are_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="kernel name"):
        check_name(name, "kernel")


@pytest.mark.parametrize("name", ["k0", "gpu-7.lab", "_x", "9", "x" * 64])
def test_plain_names_are_accepted(name: str) -> None:
    assert check_name(name, "kernel") == name


class TestPrivateDirectory:
    def test_it_is_made_for_its_user_alone(self, tmp_path: Path) -> None:
        path = private_directory(tmp_path / "a" / "b")
        assert path.stat().st_mode & 0o777 == 0o700
        assert private_directory(path) == path

    def test_one_that_others_may_enter_is_refused_with_the_cure(self, tmp_path: Path) -> None:
        path = tmp_path / "open"
        path.mkdir(mode=0o755)
        path.chmod(0o755)
        with pytest.raises(AccessRefusedError, match=f"chmod 700 {path}"):
            private_directory(path)

    def test_a_link_is_not_followed(self, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir(mode=0o700)
        (tmp_path / "link").symlink_to(tmp_path / "real")
        with pytest.raises(AccessRefusedError, match="links are not followed"):
            private_directory(tmp_path / "link")

    def test_a_link_may_lead_to_what_a_user_keeps_if_that_is_private(self, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir(mode=0o700)
        (tmp_path / "link").symlink_to(tmp_path / "real")
        assert private_directory(tmp_path / "link", may_be_link=True) == tmp_path / "link"
        (tmp_path / "real").chmod(0o750)
        with pytest.raises(AccessRefusedError, match="others may enter"):
            private_directory(tmp_path / "link", may_be_link=True)

    def test_a_file_in_its_place_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.touch()
        with pytest.raises(AccessRefusedError, match="is not a directory"):
            check_private(path)

    def test_one_that_is_not_there_is_not_private(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            check_private(tmp_path / "missing")

    @pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
    def test_one_of_somebody_else_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "theirs"
        path.mkdir(mode=0o700)
        os.chown(path, 12345, -1)
        with pytest.raises(AccessRefusedError, match="belongs to uid 12345"):
            check_private(path)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (0, 0),
        (4096, 4096),
        ("4096", 4096),
        ("1k", 1024),
        ("512M", 2**29),
        ("4G", 2**32),
        ("4 GiB", 2**32),
        ("2TB", 2**41),
    ],
)
def test_sizes_are_written_as_people_do(text: object, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "G", "4X", "-1", "1 2", True, None, 1.5j])
def test_what_is_no_size_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [(3, 3), ("90", 90), ("1.5s", 1.5), ("30m", 1800), ("2 h", 7200), ("1D", 86400)]
)
def test_times_are_written_as_people_do(text: object, seconds: float) -> None:
    assert parse_span(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "soon", "-1", "nan", "inf", "1 2", True, None])
def test_what_is_no_time_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="is not a time"):
        parse_span(text)


def test_settings_are_written_as_on_the_command_line() -> None:
    environ = {"PYROKERNEL_TIMEOUT": "2m", "PYROKERNEL_MAX_RESULT_BYTES": "1G", "XDG_CONFIG_HOME": "/nowhere"}
    found = load(environ=environ)
    assert (found.timeout, found.max_result_bytes) == (120.0, 2**30)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_a_pipe_where_a_host_says_what_it_joined_holds_nobody_up(tmp_path: Path) -> None:
    """Another account can be the first to make the directory of sockets of this one; what it puts there is not read."""
    settings = Settings(runtime_dir=str(tmp_path))
    settings.mesh_runtime_dir.mkdir()
    os.mkfifo(settings.mesh_runtime_dir / JOINED, 0o666)
    assert settings.joined == {}
