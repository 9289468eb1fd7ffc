"""Jupyter: an IPython kernel and jupyter_client's blocking client."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any, Self

_SECONDS = 30.0


class Kernel:
    """One kernel."""

    name = "Jupyter"

    def __enter__(self) -> Self:
        import ipykernel  # noqa: F401  jupyter_client alone has nothing to start
        from jupyter_client.manager import start_new_kernel

        self._manager, self._client = start_new_kernel()
        self._replies: dict[str, dict[str, Any]] = {}
        self.execute("from functions import step")
        # By looking at the live names alone, as ours does, and at all of them; with Jedi it takes many times as long.
        self.execute(
            "import IPython\nget_ipython().Completer.use_jedi = False\nIPython.core.completer.MATCHES_LIMIT = 10_000"
        )
        return self

    def __exit__(self, *exception: object) -> None:
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)

    def _reply(self, sent: str) -> dict[str, Any]:
        while sent not in self._replies:
            message = self._client.get_shell_msg(timeout=_SECONDS)
            self._replies[message["parent_header"].get("msg_id")] = message["content"]
        return self._replies.pop(sent)

    def call(self, number: int) -> int:
        return int(self.evaluate(f"step({number})"))

    def execute(self, source: str) -> None:
        content = self._reply(self._client.execute(source, store_history=False))
        assert content["status"] == "ok", content

    def evaluate(self, expression: str) -> Any:
        """Fetch a value as the protocol lets one: its repr, read again."""
        sent = self._client.execute("", silent=True, user_expressions={"value": expression})
        return ast.literal_eval(self._reply(sent)["user_expressions"]["value"]["data"]["text/plain"])

    def complete(self, code: str) -> list[str]:
        """Return the matches at the end of a text."""
        found: list[str] = self._reply(self._client.complete(code, len(code)))["matches"]
        return found

    def begin(self, source: str) -> str:
        """Have something run, and return its id when it has begun."""
        sent = self._client.execute(source, store_history=False)
        while True:
            message = self._client.get_iopub_msg(timeout=_SECONDS)
            if message["parent_header"].get("msg_id") == sent and message["msg_type"] == "execute_input":
                return str(sent)

    def wait(self, sent: str) -> None:
        """Wait for the end of what was begun."""
        self._reply(sent)

    def printed(self, source: str, started: Callable[[], None]) -> list[str]:
        """Run what prints; return the lines, `started` being called when the first is here."""
        while self._client.iopub_channel.msg_ready():
            self._client.get_iopub_msg(timeout=1)
        sent = self._client.execute(source, store_history=False)
        parts: list[str] = []
        while True:
            message = self._client.get_iopub_msg(timeout=_SECONDS)
            if message["parent_header"].get("msg_id") != sent:
                continue
            if message["msg_type"] == "stream":
                if not parts:
                    started()
                parts.append(message["content"]["text"])
            elif message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                self._reply(sent)
                return "".join(parts).splitlines()
