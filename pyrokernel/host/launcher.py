"""How kernels come to life: forked from a template, or spawned. Runs in the host process.

The `Launcher` keeps one `Template` for each set of preloaded modules, and spawns where
forking is not safe.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import socket
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

from pyrokernel import systems
from pyrokernel.again import CAN_FORK, handed, python_with, read_end, scratch_file, start_python
from pyrokernel.errors import HostError
from pyrokernel.host.launch import Launch
from pyrokernel.host.roles import ROLES
from pyrokernel.host.spawn import TemplateProcess, about_plugins
from pyrokernel.host.template import LENGTH
from pyrokernel.loop import Loop
from pyrokernel.plugins import stamp
from pyrokernel.settings import Settings

log = logging.getLogger(__name__)

_SEND_SECONDS = 5.0
_MAX_TRIES = 3
_MAX_TEMPLATES = 8
"""Each set of preloaded modules has a template; the one unused for longest goes when there are more."""


class TemplateKey(NamedTuple):
    """What kernels must have in common to be forked from the same template.

    Attributes:
        preload: Modules imported.
        environ: Environment that those modules see when they are imported; () when there are none.
    """

    preload: tuple[str, ...] = ()
    environ: tuple[tuple[str, str], ...] = ()


class Template:
    """The host's end of one template process.

    Args:
        key: What it holds.
        process: The process.
        installed: The state of what was installed when it was started.
    """

    def __init__(self, key: TemplateKey, process: TemplateProcess, installed: object) -> None:
        self.key = key
        self.installed = installed
        self.warm = False
        self.sent: dict[str, Launch] = {}
        self.waiting: list[Launch] = []
        self._process = process
        self._socket = process.control
        self._socket.settimeout(_SEND_SECONDS)
        self._buffer = b""

    @property
    def output(self) -> str:
        """What the process printed last."""
        return read_end(self._process.output)

    @property
    def is_free(self) -> bool:
        """Whether nobody waits for a kernel of it."""
        return not (self.sent or self.waiting)

    def fileno(self) -> int:
        """Return the descriptor to watch."""
        return self._socket.fileno()

    def receive(self) -> list[dict[str, Any]] | None:
        """Return the answers that have arrived; None when the process is gone."""
        try:
            data = self._socket.recv(65536)
        except ConnectionResetError:
            data = b""
        if not data:
            return None
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def send(self, launch: Launch) -> None:
        """Ask for one kernel."""
        descriptors = launch.open()
        body = json.dumps(launch.birth.to_wire()).encode()
        self.sent[launch.birth.instance] = launch
        try:
            socket.send_fds(self._socket, [LENGTH.pack(len(body))], descriptors)
            self._socket.sendall(body)
        except OSError as error:
            # Dead or stuck either way; its end of file, or the death we give it, sorts out what became of this one.
            log.warning("template %d does not take requests: %s", self._process.pid, error)
            self.kill()
        launch.handed_over()

    def kill(self) -> None:
        """End the process at once."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, systems.KILL)

    def close(self) -> None:
        """Let the process end."""
        self._process.close()


class Launcher:
    """Brings kernels to life.

    Args:
        loop: The host's loop.
        environ: Environment of all processes it starts.
        settings: Where plugins lie, which a template looks for; `portable` keeps from forking.
    """

    def __init__(self, loop: Loop, environ: Mapping[str, str], settings: Settings) -> None:
        self._loop = loop
        self._environ = {**environ, **about_plugins(settings.dump())}
        self._settings = settings
        self._fork = CAN_FORK and not settings.portable
        self._templates: dict[TemplateKey, Template] = {}
        self._unforkable: set[TemplateKey] = set()

    def warm(self, process: TemplateProcess | None = None) -> None:
        """Take the template without preloaded modules, or start it, ahead of the first request."""
        if self._fork:
            self._start(TemplateKey(), process)
        elif process is not None:
            process.close()

    def launch(self, launch: Launch) -> None:
        """Bring one kernel to life."""
        if launch.over:
            return
        if launch.tries >= _MAX_TRIES:
            launch.failed(HostError(f"its template died {launch.tries} times{launch.last_words}"))
            return
        key = TemplateKey(launch.preload, tuple(sorted(launch.environ.items())) if launch.preload else ())
        if not self._fork or key in self._unforkable:
            self._spawn(launch)
            return
        template = self._templates.get(key)
        if template and template.is_free and template.installed != stamp(self._settings):
            # A package was installed, upgraded or removed: the next kernel is to know.
            self._forget(template)
            template = None
        template = template or self._start(key)
        self._templates[key] = self._templates.pop(key)  # now the one used last
        if template.warm:
            template.send(launch)
        else:
            template.waiting.append(launch)

    def give_up(self, launch: Launch, error: Exception) -> None:
        """Wait no longer for a process; a template that is warm and still has not answered is stuck, and killed."""
        for template in self._templates.values():
            if launch.birth.instance in template.sent:
                template.kill()
        launch.failed(error)

    def close(self) -> None:
        """Let the templates end."""
        for template in self._templates.values():
            self._loop.unwatch(template)
            template.close()
        self._templates.clear()

    def _start(self, key: TemplateKey, process: TemplateProcess | None = None) -> Template:
        if process is None:
            process = TemplateProcess.anew(key.preload, {**self._environ, **dict(key.environ)})
        idle = [template for template in self._templates.values() if template.is_free]
        if len(self._templates) >= _MAX_TEMPLATES and idle:
            self._forget(idle[0])
        template = self._templates[key] = Template(key, process, stamp(self._settings))
        self._loop.watch(template, lambda: self._on_answers(template))
        return template

    def _on_answers(self, template: Template) -> None:
        answers = template.receive()
        if answers is None:
            self._on_end(template)
            return
        for answer in answers:
            if "warm" in answer:
                self._on_warm(template, answer["warm"])
            elif "failed" in answer:
                self._on_failed(template, answer["failed"])
            elif "born" in answer:
                template.sent.pop(answer["born"]).born(answer["pid"])
            elif "unborn" in answer:
                launch = template.sent.pop(answer["unborn"])
                launch.failed(HostError(f"it could not be forked: {answer['reason']}"))

    def _on_warm(self, template: Template, threads: int) -> None:
        template.warm = True
        if threads > 1:
            log.info("preloading %s started threads: kernels are spawned, not forked", ", ".join(template.key.preload))
            self._unforkable.add(template.key)
            self._forget(template)
        waiting, template.waiting = template.waiting, []
        for launch in waiting:
            self.launch(launch)

    def _on_failed(self, template: Template, error: dict[str, Any]) -> None:
        self._forget(template)
        what = f"preloading {', '.join(template.key.preload)}" if template.key.preload else "loading the kernel"
        for launch in template.waiting:
            launch.failed(HostError(f"{what} failed: {error['error']}: {error['message']}"))

    def _on_end(self, template: Template) -> None:
        """Forget a template that is gone; the next request starts another one."""
        words = template.output
        self._forget(template)
        if not template.warm and "preloading plugin" in words:
            log.warning("the template died; kernels start without plugins preloaded. It wrote:\n%s", words)
            sections = {name: {**section, "preload": False} for name, section in self._settings.plugins.items()}
            self._environ |= about_plugins({**self._settings.dump(), "plugins": sections})
        for launch in template.sent.values():
            launch.lost(self.launch)
        for launch in template.waiting:
            # It died while importing; if that is the modules' doing, the tries run out.
            launch.tries += 1
            launch.last_words = f"; it wrote:\n{words}" if words else ""
            self.launch(launch)

    def _forget(self, template: Template) -> None:
        self._loop.unwatch(template)
        template.close()
        if self._templates.get(template.key) is template:
            del self._templates[template.key]

    def _spawn(self, launch: Launch) -> None:
        output, ready_write, *lifeline = launch.open()
        numbers = [handed(one) for one in lifeline]
        birth = dataclasses.replace(launch.birth, ready_fd=handed(ready_write), lifeline_fd=(*numbers, -1)[0])
        stdin = scratch_file(portable=self._settings.portable)
        os.write(stdin, json.dumps(birth.to_wire()).encode())
        os.lseek(stdin, 0, os.SEEK_SET)
        try:
            pid = start_python(
                python_with(ROLES[launch.birth.role].module),
                {**self._environ, **launch.environ},
                stdin=stdin,
                output=output,
                passed=[ready_write, *lifeline],
            )
        except OSError as error:
            os.close(ready_write)
            launch.failed(HostError(f"cannot start {sys.executable}: {error.strerror}"))
            return
        finally:
            os.close(stdin)
        launch.handed_over()
        launch.born(pid)
