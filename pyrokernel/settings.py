"""What can be configured: frozen `Settings`, read once and passed in. Runs in every process.

Order, later wins: defaults, the configuration file, PYROKERNEL_* variables, arguments.
Importing this module reads nothing; `load()` does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import shlex
import socket
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyrokernel import systems
from pyrokernel.errors import AccessRefusedError, SettingsError
from pyrokernel.roles import Role

ENV_PREFIX = "PYROKERNEL_"
MAX_SOCKET_PATH_BYTES = 100
"""Linux allows 107 bytes in a unix socket's address, macOS 103."""

JOINED = "joined.json"
"""Name of the file in the runtime directory by which a host that has joined a name server is found again."""
_JOINED_BYTES = 4096

GATEWAY_SOCKET = "gateway"
"""In the directory of a mesh's sockets: the way to other machines. Not `.sock`, by which others come in."""

PAPER = "handed.pem"
"""There, too: key and certificate that a gateway makes for the kernels to which it hands connections on."""

DURABILITIES = ("process", "power")

_SIZE_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SPAN_UNITS = {"": 1, "S": 1, "M": 60, "H": 3600, "D": 86400}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings; each field is also `PYROKERNEL_<FIELD>` and a key of the configuration file.

    Attributes:
        mesh: Name of the mesh; keys the directories.
        ns: Address of the name server: "" for the host's own, "./u:PATH", or "HOST:PORT", beyond loopback by TLS.
        runtime_dir: Where sockets and locks live; "" for a private directory on this machine's own disk.
        state_dir: Where journals live; "" for XDG_STATE_HOME.
        host: Name of this machine in the mesh; "" for its host name.
        timeout: Seconds to wait for an answer that should come at once (connect, describe, complete); outside of
            Python also "90s", "30m", "2h".
        portable: Do without fork, unix sockets, shared memory, and whatever else Windows lacks.
        input_timeout: Seconds that input() in a kernel waits for a front end.
        max_result_bytes: Largest value that travels with a reply; outside of Python also "64M".
        shell_startup: File of lines that the shell runs before its first prompt; "" for `shell.pk` beside the
            configuration file.
        plugins_dir: Folders, with ":" between, whose modules named `pyrokernel_*` are plugins without being installed.
        no_plugin: Names of plugins to go without, with commas between.
        state_host: Name of the host that keeps the shared state; "" for that of the name server, else the only one.
        state_store: Where the shared state is kept: "sqlite", or the name of the plugin that brings another store.
        durability: What a write to the shared state survives once it is answered: "process" (the end of any process)
            or "power" (a power cut too; each write waits for the disk).
        state_versions: How many values of each key are kept, the present one included.
        state_changes: How many of the last writes are kept for watchers that come back.
        state_file_bytes: How much of large values that were replaced is kept on disk; outside of Python also "512M".
        state_backup: Seconds between backups that are made by themselves, 0 for none; outside of Python also "1d".
        trust: Authors, with commas between, whose pickled objects in the shared state are loaded besides one's own,
            such as "ana", "host:lab2" or "ana@lab2".
        listen: "HOST:PORT" at which this machine is reached from others, by mutual TLS; "" for not at all.
        advertise: "HOST:PORT" by which others reach this machine, where that is not `listen` but leads to it.
        via: "HOST:PORT" of a SOCKS5 proxy by which other machines are reached, such as `ssh -D` makes one.
        certs: Identity directory of the user, with certificate and key; "" for `certs` beside the configuration file.
        host_certs: That of the host and of the name server; "" for `host` beside the configuration file.
        gateway: Unix socket by which the processes of a mesh reach other machines; their host says so.
        policy: File that says who may do what; "" for `policy.toml` beside the configuration file.
        max_connections: How many connections each process takes; 0 for any number, here and in the next two.
        user_connections: How many of these one user may have, who is no admin.
        user_requests: How many requests a second one user may make to each process, who is no admin.
        act_for: Whom the connections of this process are for, as "USER:ROLE"; "" for the account itself.
        audit_bytes: How much the record of who did what may take on disk, 0 for none; outside of Python also "64M".
        plugins: A section for each plugin, by its name: `[plugins.NAME]` in a file, one JSON object as a variable.
    """

    mesh: str = "default"
    ns: str = ""
    runtime_dir: str = ""
    state_dir: str = ""
    host: str = ""
    timeout: float = 10.0
    portable: bool = not hasattr(socket, "AF_UNIX")
    input_timeout: float = 600.0
    max_result_bytes: int = 64 * 1024 * 1024
    shell_startup: str = ""
    plugins_dir: str = ""
    no_plugin: str = ""
    state_host: str = ""
    state_store: str = "sqlite"
    durability: str = "process"
    state_versions: int = 32
    state_changes: int = 100_000
    state_file_bytes: int = 512 * 1024 * 1024
    state_backup: float = 86400.0
    trust: str = ""
    listen: str = ""
    advertise: str = ""
    via: str = ""
    certs: str = ""
    host_certs: str = ""
    policy: str = ""
    gateway: str = ""
    max_connections: int = 4096
    user_connections: int = 256
    user_requests: float = 2000.0
    act_for: str = ""
    audit_bytes: int = 256 * 1024 * 1024
    plugins: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        check_name(self.mesh, "mesh")
        if self.host:
            check_name(self.host, "host")
        if self.state_host:
            check_name(self.state_host, "state_host")
        check_name(self.state_store, "state_store")
        if self.durability not in DURABILITIES:
            raise SettingsError(f"durability is one of {', '.join(DURABILITIES)}, not {self.durability!r}")
        for name in (
            "state_file_bytes",
            "state_backup",
            "max_connections",
            "user_connections",
            "user_requests",
            "audit_bytes",
        ):
            if not 0 <= getattr(self, name) < float("inf"):
                raise SettingsError(f"{name} must be a finite number, 0 or above, not {getattr(self, name)}")
        for name in ("timeout", "input_timeout", "max_result_bytes", "state_versions", "state_changes"):
            value = getattr(self, name)
            if not 0 < value < float("inf"):  # also refuses nan
                raise SettingsError(f"{name} must be a finite number above 0, not {value}")
        if self.act_for:
            _read_act_for(self.act_for)
        for name, section in self.plugins.items():
            if not isinstance(section, Mapping):
                raise SettingsError(f"plugins.{name} must be a table, [plugins.{name}], not {section!r}")

    @property
    def host_name(self) -> str:
        """Name of this machine in the mesh."""
        return self.host or re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:64] or "localhost"

    @property
    def mesh_runtime_dir(self) -> Path:
        """Directory of this mesh's sockets and locks on this machine (not created here)."""
        root = Path(self.runtime_dir) if self.runtime_dir else default_runtime_root()
        return root / self.mesh

    @property
    def mesh_state_dir(self) -> Path:
        """Directory of this mesh's journals on this machine (not created here)."""
        if self.state_dir:
            root = Path(self.state_dir)
        else:
            root = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "pyrokernel"
        return root / self.mesh / self.host_name

    @property
    def address(self) -> str:
        """Address at which other machines reach this one, "" where they do not."""
        if self.advertise and self.listen:
            return self.advertise
        return f"{socket.gethostname()}:{self.listen.rpartition(':')[2]}" if self.listens_everywhere else self.listen

    @property
    def listens_everywhere(self) -> bool:
        """Whether `listen` names no address of this machine, but all of them."""
        return split_address(self.listen)[0] in ("0.0.0.0", "::")

    @property
    def certs_dir(self) -> Path:
        """Identity directory of the user."""
        return Path(self.certs).expanduser() if self.certs else configuration_dir() / "certs"

    @property
    def host_certs_dir(self) -> Path:
        """Identity directory of the host, and of the name server."""
        return Path(self.host_certs).expanduser() if self.host_certs else configuration_dir() / "host"

    @property
    def policy_file(self) -> Path:
        """File that says who may do what."""
        return Path(self.policy).expanduser() if self.policy else configuration_dir() / "policy.toml"

    @property
    def trusted(self) -> frozenset[str]:
        """Accounts whose pickled objects are loaded besides one's own."""
        return frozenset(name.strip() for name in self.trust.split(",") if name.strip())

    @property
    def acts_for(self) -> tuple[str, Role] | None:
        """User and role of `act_for`; None for the account itself."""
        return _read_act_for(self.act_for) if self.act_for else None

    @property
    def joined(self) -> dict[str, str]:
        """How the host of this machine is in the mesh of another name server, as settings; empty where it is not."""
        return _read_joined(self.mesh_runtime_dir / JOINED)

    @property
    def ns_address(self) -> str:
        """Address of the name server in use: `ns`, else that which the host of this machine joined, else its own."""
        return self.ns or self.joined.get("ns") or f"./u:{self.mesh_runtime_dir / 'ns.sock'}"

    @property
    def host_socket(self) -> Path:
        """Unix socket of this machine's host."""
        return self.mesh_runtime_dir / "host.sock"

    def dump(self) -> dict[str, Any]:
        """Return every setting with its value, for `doctor`."""
        return dataclasses.asdict(self)

    def to_env(self) -> dict[str, str]:
        """Return the settings as PYROKERNEL_* variables, for a child process, which acts for its account."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__} | {"act_for": ""}
        return {
            ENV_PREFIX + name.upper(): json.dumps(value) if isinstance(value, Mapping) else str(value)
            for name, value in values.items()
        }


def _read_joined(path: Path) -> dict[str, str]:
    try:
        descriptor = os.open(path, os.O_RDONLY | systems.NOFOLLOW | systems.NOWAIT | systems.OWN)
    except OSError:
        return {}
    with open(descriptor, "rb") as file:
        info = os.fstat(descriptor)
        # Whoever else could write it would say whose code is run here.
        if hasattr(os, "getuid") and (info.st_uid != os.getuid() or info.st_mode & 0o077):
            return {}
        try:
            found = json.loads(file.read(_JOINED_BYTES))
        except ValueError:
            return {}
    return {str(name): str(value) for name, value in found.items()} if isinstance(found, dict) else {}


def gateway_environment(settings: Settings) -> dict[str, str]:
    """Return what a gateway goes by, as PYROKERNEL_* variables: one that runs by other values is not the one meant."""
    names = ("listen", "via", "host_certs", "policy", "portable", "no_plugin", "plugins_dir", "plugins")
    meant = dataclasses.replace(
        settings, host_certs=str(settings.host_certs_dir.absolute()), policy=str(settings.policy_file.absolute())
    ).to_env()
    return {ENV_PREFIX + name.upper(): meant[ENV_PREFIX + name.upper()] for name in names}


def load(*, file: str | Path | None = None, environ: Mapping[str, str] | None = None, **arguments: Any) -> Settings:
    """Read the settings.

    Args:
        file: TOML file; None takes PYROKERNEL_CONFIG, else `$XDG_CONFIG_HOME/pyrokernel/config.toml` if it exists.
        environ: Environment to read; None for the process's own.
        arguments: Single settings; a value of None counts as not given.

    Raises:
        SettingsError: A name is unknown, a value has the wrong type, or a named file cannot be read.
    """
    env = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    path = file or env.get(ENV_PREFIX + "CONFIG")
    if path:
        values.update(_read_file(Path(path)))
    else:
        default = configuration_dir(env) / "config.toml"
        if default.exists():
            values.update(_read_file(default))
    for name, text in env.items():
        if name.startswith(ENV_PREFIX) and name != ENV_PREFIX + "CONFIG":
            values[_known(name.removeprefix(ENV_PREFIX).lower(), name)] = text
    if "ns" not in values and env.get("PYRO_NS_HOST"):
        host = env["PYRO_NS_HOST"]
        values["ns"] = host if host.startswith("./u:") else f"{host}:{env.get('PYRO_NS_PORT', '9090')}"
    values.update({_known(name, name): value for name, value in arguments.items() if value is not None})
    chosen = {name: _convert(name, value) for name, value in values.items()}
    # Hosts and kernels have working directories of their own.
    folders = str(chosen.get("plugins_dir", "")).split(os.pathsep)
    chosen["plugins_dir"] = os.pathsep.join(os.path.abspath(os.path.expanduser(one)) for one in folders if one)
    return Settings(**chosen)


def configuration_dir(environ: Mapping[str, str] | None = None) -> Path:
    """Return the directory of the configuration file, and of what lies beside it."""
    env = os.environ if environ is None else environ
    return Path(env.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "pyrokernel"


def split_address(address: str) -> tuple[str, str]:
    """Return host, without the brackets of an IPv6 address, and port of "HOST:PORT"; "" for what is missing."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), port


def place_of(address: str, name: str) -> tuple[str, int]:
    """Return host and port of an address at which something is to listen, or by which it is reached.

    Args:
        address: "HOST:PORT".
        name: Of the setting that has it.

    Raises:
        SettingsError: It is none.
    """
    host, port = split_address(address)
    # An IPv6 address without brackets ends in what looks like a port.
    bare = host.count(":") > 1 and not address.startswith("[") and host != "::"
    if not host or bare or not port.isdecimal() or not 0 < int(port) < 65536:
        raise SettingsError(f"{name}={address!r}: use HOST:PORT, such as 192.168.1.5:9191 or [2001:db8::5]:9191")
    return host, int(port)


def command_line(settings: Settings, words: str) -> str:
    """Return the command that does something else to the same mesh."""
    usual = load()
    options = []
    for name in ("mesh", "ns"):
        if getattr(settings, name) != getattr(usual, name):
            options += [f"--{name}", getattr(settings, name)]
    return " ".join(["pyrokernel", *map(shlex.quote, options), words])


def parse_size(value: Any) -> int:
    """Return a number of bytes from an integer or from text such as "512M" or "4 GiB".

    Raises:
        ValueError: It is neither.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?\s*", str(value), re.IGNORECASE)
    if not found:
        raise ValueError(f"{value!r} is not a size such as 512M or 4G")
    return int(float(found[1]) * _SIZE_UNITS[found[2].upper()])


def parse_span(value: Any) -> float:
    """Return seconds from a number or from text such as "90", "30m", "2h" or "1d".

    Raises:
        ValueError: It is none of these.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?(?:e[-+]?\d+)?)\s*([SMHD]?)\s*", str(value), re.IGNORECASE)
    if not found:
        raise ValueError(f"{value!r} is not a time such as 90, 30m or 2h")
    return float(found[1]) * _SPAN_UNITS[found[2].upper()]


def check_name(name: str, what: str) -> str:
    """Return `name` if it may name a mesh, host, kernel or tag.

    Raises:
        SettingsError: It is empty, too long, or has characters that paths, globs or terminals treat specially.
    """
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}", name):
        raise SettingsError(
            f"{what} name {name!r}: use 1 to 64 letters, digits, '.', '_' or '-', and start with a letter, digit or '_'"
        )
    return name


def default_runtime_root() -> Path:
    """Return the directory for sockets: by user, host and boot, on the machine's own disk.

    Not XDG_RUNTIME_DIR, which is removed at logout; tmux chose the same way.
    """
    return Path(systems.temporary_root()) / f"pyrokernel-{systems.own_uid()}" / machine_key()


def machine_key() -> str:
    """Return a word for this machine since it was started: two machines may have files at the same paths."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = ""
    return hashlib.sha256(f"{socket.gethostname()}/{boot}".encode()).hexdigest()[:8]


def private_directory(path: Path, *, may_be_link: bool = False) -> Path:
    """Create `path` and make sure that it belongs to this user alone.

    Args:
        path: Which.
        may_be_link: Follow a link, as for what a user keeps; not where others can put one, as in a directory for all.

    Raises:
        AccessRefusedError: It is a link, belongs to another user, or others may enter it.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with contextlib.suppress(FileExistsError):  # it is no directory, which is said below
        path.mkdir(mode=0o700, exist_ok=True)
    check_private(path, may_be_link=may_be_link)
    return path


def check_private(path: Path, *, may_be_link: bool = False) -> None:
    """Refuse a directory that is not this user's alone; arguments as those of `private_directory`.

    Raises:
        AccessRefusedError: It is a link, belongs to another user, or others may enter it.
        FileNotFoundError: It does not exist.
    """
    info = path.stat() if may_be_link else path.lstat()
    if not stat.S_ISDIR(info.st_mode):
        followed = "" if may_be_link else " (links are not followed)"
        raise AccessRefusedError(f"{path} is not a directory{followed}; remove it, or set another (runtime_dir)")
    if not hasattr(os, "getuid"):
        return  # Windows: what is below a user's own folder is private by the rights that it inherits
    if info.st_uid != os.getuid():
        raise AccessRefusedError(f"{path} belongs to uid {info.st_uid}, not to you; set runtime_dir to one of your own")
    if stat.S_IMODE(info.st_mode) & 0o077:
        raise AccessRefusedError(f"others may enter {path}; run: chmod 700 {path}")


def _read_file(path: Path) -> dict[str, Any]:
    import tomllib  # only where there is a file to read

    try:
        with path.open("rb") as stream:
            data = tomllib.load(stream)
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path} is not valid TOML: {error}") from error
    return {_known(name, f"{name} in {path}"): value for name, value in data.items() if name != "kernel"}


def _read_act_for(text: str) -> tuple[str, Role]:
    user, colon, role = text.rpartition(":")
    if not colon:
        raise SettingsError(f"act_for is USER:ROLE, such as ana:observer, not {text!r}")
    return check_name(user, "user"), Role.of(role)


def _known(name: str, shown: str) -> str:
    names = {field.name for field in dataclasses.fields(Settings)}
    if name not in names:
        raise SettingsError(f"unknown setting {shown}; known are: {', '.join(sorted(names))}")
    return name


def _convert(name: str, value: Any) -> Any:
    """Bring a value from a file or variable to the type of its default."""
    if name == "plugins":
        return _read_sections(value)
    default = getattr(Settings, name)
    try:
        if isinstance(default, bool):
            if isinstance(value, bool):
                return value
            return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False, "": False}[
                str(value).lower()
            ]
        if isinstance(default, int):
            return parse_size(value)
        if isinstance(default, float):
            return parse_span(value)
    except KeyError as error:
        raise SettingsError(f"setting {name}: {value!r} is not a {type(default).__name__}") from error
    except ValueError as error:
        raise SettingsError(f"setting {name}: {error}") from error
    return str(value)


def _read_sections(value: Any) -> dict[str, Any]:
    """Read the sections of plugins, from a table or from JSON."""
    try:
        sections = json.loads(value or "{}") if isinstance(value, str) else value
    except ValueError as error:
        raise SettingsError(f"setting plugins: {value!r} is not JSON: {error}") from error
    if not isinstance(sections, Mapping):
        raise SettingsError(f"setting plugins: {value!r} is not a table of sections, [plugins.NAME]")
    return dict(sections)
