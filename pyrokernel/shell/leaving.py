"""What is said when the shell is left: which kernels stay running, and which do not. Runs in the shell process."""

from __future__ import annotations

from pyrokernel.client.listing import ask_all
from pyrokernel.client.mesh import Mesh
from pyrokernel.errors import NameServerNotFoundError, PyrokernelError
from pyrokernel.settings import command_line
from pyrokernel.texts import describe_silence, label


def what_stays(mesh: Mesh, *, restricted: bool) -> list[str]:
    """Ask all kernels, for a second at most, and say which stay running, and how to stop them.

    Only those that answer are said to: names alone may be known from before.

    Args:
        mesh: Where they are.
        restricted: Name no commands of this machine.
    """
    doctor, shell, stop = (command_line(mesh.settings, words) for words in ("doctor", "shell", "stop"))
    try:
        group = mesh[:]
        if not group:
            return [f"no kernel runs in mesh {mesh.settings.mesh!r}; `{stop}` ends its host"]
        answers, errors, silent = ask_all(group, "ping")
    except NameServerNotFoundError:
        return [f"the name server of mesh {mesh.settings.mesh!r} does not answer; `{doctor}` tells more"]
    except PyrokernelError as error:
        return [f"what stays running is not known: {error}; `{doctor}` tells more"]
    said = []
    if answers:
        verb, them = ("stays", "it") if len(answers) == 1 else ("stay", "them")
        how = "" if restricted else f": `{shell}` comes back, `{stop}` stops {them}"
        said.append(f"{label(answers)} {verb} running, with all variables{how}")
    if errors:
        verb = "is" if len(errors) == 1 else "are"
        said.append(f"{label(errors)} {verb} gone, or out of reach; `{doctor}` tells more")
    if silent:
        said.append(describe_silence(silent))
    return said
