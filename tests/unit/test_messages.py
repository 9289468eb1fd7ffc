"""Messages are plain data on the wire, and themselves again on the other side."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from pyrokernel import messages
from pyrokernel.errors import CellCancelledError, KernelDiedError, RemoteError, ResultUnavailableError
from pyrokernel.messages import (
    CommandInfo,
    Completion,
    Death,
    Event,
    EventKind,
    HostConfig,
    Inspection,
    KernelBirth,
    KernelInfo,
    KernelSpec,
    KernelStatus,
    Lent,
    Message,
    PluginInfo,
    Receipt,
    RefInfo,
    Reply,
    Shipped,
    StateChange,
    StateEntry,
)

SAMPLES: list[Message] = [
    Event(
        seq=7, kind=EventKind.OUTPUT, cell="c0ffee", at=1.5, data={"stream": "stdout", "text": "\udcff", "late": True}
    ),
    Reply(
        status="ok", kernel="k0", instance="01", cell="c0ffee", execution_count=3, text="42", data={"text/plain": "42"}
    ),
    Reply(status="error", ename="KeyError", evalue="'x'", traceback="Traceback ..."),
    KernelSpec(
        name="camera", tags=("optics", "lab"), env={"A": "1"}, preload=("json",), protected=True, memory_bytes=1
    ),
    KernelBirth(spec={"name": "camera"}, instance="01", mesh="lab", host="pc", socket="/run/k", journal_dir="/var/j"),
    StateEntry(key="gain", revision=7, kind="int", type="int", summary="5", author="ada", via="k0", expires=2.5),
    StateChange(key="gain", revision=8, op="delete", kept=False),
    HostConfig(settings={"mesh": "lab"}, specs=({"name": "camera"},), private=True),
    KernelInfo(name="camera", instance="01", tags=("optics",), status=KernelStatus.BUSY, started=2.0),
    Death(kernel="k0", instance="01", at=3.0, signal=9, last_cell={"cell": "c0ffee", "source": "1", "started": 2.0}),
    Receipt(kernel="k0", outcome="killed", detail="a fresh instance answers"),
    Lent(token="A-_9", shown="camera", type="Camera", restricted=True, lease=60.0, times=2),
    RefInfo(id="0123456789ab", kernel="k0", kind="shared", shown="camera", by="ada", expires=5.5, pins=("m.camera",)),
    Completion(matches=("pi", "pow"), types=("float", "function"), cursor_start=5, cursor_end=6),
    CommandInfo(name="snap", owner="plugin camera", parameters=({"name": "exposure", "kind": "either"},), safe=True),
    Shipped(name="analysis", digest="0123456789abcdef", commands=("fit",), at=4.0),
    PluginInfo(name="camera", hooks=("pyrokernel_register_commands",), problems=("it raised",)),
    Inspection(found=True, name="pi", type="float"),
]


@pytest.mark.parametrize("message", SAMPLES, ids=lambda message: type(message).__name__)
def test_a_message_survives_json(message: Message) -> None:
    assert type(message).from_wire(json.loads(json.dumps(message.to_wire()))) == message


def test_every_message_has_a_sample_here() -> None:
    defined = {
        member
        for member in vars(messages).values()
        if isinstance(member, type) and issubclass(member, Message) and member is not Message
    }
    assert defined == {type(message) for message in SAMPLES}


@pytest.mark.parametrize("message", SAMPLES, ids=lambda message: type(message).__name__)
def test_messages_are_frozen(message: Message) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(message, dataclasses.fields(message)[0].name, "other")


def test_a_field_from_a_newer_peer_is_left_out() -> None:
    assert Event.from_wire({"seq": 1, "kind": "ended", "mood": "fine"}) == Event(seq=1, kind=EventKind.ENDED)


def test_a_missing_field_is_an_error_at_once() -> None:
    with pytest.raises(TypeError, match="seq"):
        Event.from_wire({"kind": "ended"})


def test_two_events_do_not_share_their_data() -> None:
    assert Event(seq=1, kind="ended").data is not Event(seq=2, kind="ended").data


def test_enum_members_become_their_text() -> None:
    wire = KernelInfo(name="k0", instance="01").to_wire()
    assert type(wire["status"]) is str
    assert wire["status"] == "starting"


def test_messages_inside_messages_become_plain_data() -> None:
    event = Event(seq=1, kind="ended")
    wire = dataclasses.replace(Completion(), matches=(event,)).to_wire()  # type: ignore[arg-type]  # any message will do
    assert wire["matches"] == [event.to_wire()]


def test_ids_differ_and_have_the_length_that_pyro_needs() -> None:
    assert len({messages.new_id() for _ in range(100)}) == 100
    assert len(messages.new_id()) == 32
    assert len(messages.new_instance_id()) == 16


class TestReply:
    def test_result_is_the_value(self) -> None:
        assert Reply(status="ok", value=[1, 2]).result == [1, 2]

    def test_result_is_none_when_there_was_no_expression(self) -> None:
        assert Reply(status="ok").result is None

    def test_result_decodes_a_packed_value_when_asked(self) -> None:
        class Packed:
            def load(self) -> Any:
                return "decoded"

        assert Reply(status="ok", value=Packed()).result == "decoded"

    def test_result_of_failed_code_raises_with_where_and_why(self) -> None:
        reply = Reply(status="error", kernel="k0", cell="c0ffee", ename="KeyError", evalue="'x'", traceback="Traceback")
        with pytest.raises(RemoteError, match=r"KeyError: 'x' \(in kernel 'k0'\)\nTraceback") as caught:
            _ = reply.result
        assert caught.value.cell == "c0ffee"
        assert not reply.ok

    def test_result_of_a_cancelled_cell_says_so(self) -> None:
        with pytest.raises(CellCancelledError, match="c0ffee was cancelled on kernel 'k0'"):
            _ = Reply(status="cancelled", kernel="k0", cell="c0ffee").result

    def test_a_value_that_stayed_in_the_kernel_does_not_make_the_cell_a_failure(self) -> None:
        reply = Reply(status="ok", kernel="k0", text="<lock>", value_missing="it cannot be pickled")
        reply.raise_if_failed()
        with pytest.raises(ResultUnavailableError, match="it cannot be pickled"):
            _ = reply.result

    def test_repr_is_one_short_line(self) -> None:
        ok = Reply(status="ok", kernel="k0", execution_count=3, text="x" * 200)
        failed = Reply(status="error", kernel="k0", execution_count=4, ename="KeyError", evalue="'x'")
        assert repr(ok) == f"<Reply k0[3] ok {'x' * 57}...>"
        assert repr(failed) == "<Reply k0[4] error KeyError: 'x'>"
        assert repr(Reply(status="ok", kernel="k0", execution_count=5)) == "<Reply k0[5] ok>"


def test_a_death_becomes_the_error_that_callers_get() -> None:
    death = Death(kernel="k0", instance="01", at=3.0, signal=9, tail="last line", cause="killed by SIGKILL")
    error = death.to_error()
    assert type(error) is KernelDiedError
    assert (error.kernel, error.instance, error.signal, error.exit_code) == ("k0", "01", 9, None)
    assert str(error) == "kernel 'k0' died: killed by SIGKILL\nlast output:\n  last line"


def parameter(name: str, kind: str = "either", annotation: str = "", default: str = "") -> dict[str, Any]:
    return {"name": name, "kind": kind, "annotation": annotation, "default": default, "required": not default}


def test_the_signature_of_a_command_reads_as_python() -> None:
    info = CommandInfo(
        name="f",
        parameters=(
            parameter("a", "positional"),
            parameter("b", annotation="int"),
            parameter("c", default="1"),
            parameter("d", "keyword", "float", "0.5"),
            parameter("more", "options"),
        ),
        returns="str",
    )
    assert info.signature == "(a, /, b: int, c=1, *, d: float = 0.5, **more) -> str"
    assert CommandInfo(name="g", parameters=(parameter("x", "rest"), parameter("y", "keyword"))).signature == "(*x, y)"
