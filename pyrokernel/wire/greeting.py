"""The first message of a connection, as the gateway reads it and passes it on. Runs in the gateway process."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from Pyro5.errors import ConnectionClosedError
from Pyro5.protocol import MSG_CONNECT, MSG_CONNECTFAIL
from Pyro5.serializers import JsonSerializer, SerpentSerializer

from pyrokernel.errors import MachineLostError, ProtocolError
from pyrokernel.wire.codec import Buffer
from pyrokernel.wire.connection import FLAGS_COMPRESSED, IncomingMessage, MessageReader, frame
from pyrokernel.wire.introduction import LOST, pack, words_of_lost
from pyrokernel.wire.tls import AnySocket

__all__ = [
    "HANDSHAKE_BYTES",
    "PLAIN_SERIALIZERS",
    "FirstMessage",
    "check_first",
    "heed_no_warnings",
    "object_of",
    "refusal",
    "with_annotations",
]

HANDSHAKE_BYTES = 4096


class _PlainSerpent(SerpentSerializer):  # type: ignore[misc]  # Pyro5 has no type information
    """Reads plain data alone.

    Pyro's own makes a proxy of a dict that says so, which dials wherever that says once it is looked into, and reads
    what it is answered there as marshal.
    """

    @classmethod
    def dict_to_class(cls, data: dict[str, Any]) -> Any:
        return (
            float(data["value"]) if data.get("__class__") == "float" else _refuse_class(data)
        )  # nan, as serpent has it


class _PlainJson(JsonSerializer):  # type: ignore[misc]
    """Likewise."""

    @classmethod
    def dict_to_class(cls, data: dict[str, Any]) -> Any:
        return _refuse_class(data)


def _refuse_class(data: dict[str, Any]) -> Any:
    raise ProtocolError(f"plain data is taken here, and nothing of class {data.get('__class__')!s:.80}")


# All that is decoded before it is known who speaks.
PLAIN_SERIALIZERS: Mapping[int, Any] = {one.serializer_id: one for one in (_PlainSerpent(), _PlainJson())}
"""What reads the messages of those who may not run code, by the numbers of Pyro's own."""


def heed_no_warnings() -> None:
    """Have the parser of Python, which reads serpent, not warn of what a peer sends: that could fill a log."""
    warnings.filterwarnings("ignore", category=SyntaxWarning, module="<unknown>$")


class FirstMessage:
    """The first message of a connection, put together from what arrives; no more than one is read."""

    def __init__(self) -> None:
        self._reader = MessageReader(HANDSHAKE_BYTES)

    def read(self, sock: AnySocket) -> IncomingMessage | None:
        """Take what has arrived; return the message once it is whole.

        Raises:
            ProtocolError: The bytes are none, or too many.
            OSError: The connection failed, or has ended.
        """
        try:
            return self._reader.read(sock)
        except ConnectionClosedError as error:
            raise ConnectionResetError(str(error)) from error


def check_first(message: IncomingMessage) -> None:
    """Refuse what may not be the first message.

    Raises:
        ProtocolError: It is no connect message, or in a serializer that could do harm.
    """
    if message.type != MSG_CONNECT or message.flags & FLAGS_COMPRESSED:
        raise ProtocolError("the first message must be an uncompressed connect")
    if message.serializer_id not in PLAIN_SERIALIZERS:
        raise ProtocolError(f"serializer {message.serializer_id} is not decoded before the handshake")


def object_of(message: IncomingMessage) -> str:
    """Return the id of the object that a connection is for.

    Raises:
        ProtocolError: The message is no connect message, or malformed.
    """
    check_first(message)
    try:
        said: Any = PLAIN_SERIALIZERS[message.serializer_id].loads(bytes(message.payload))
        found = said["object"]
    except Exception as error:
        raise ProtocolError("the first message is malformed") from error
    if not isinstance(found, str):
        raise ProtocolError("the first message names no object")
    return found


def with_annotations(message: IncomingMessage, annotations: Mapping[bytes, bytes]) -> bytes:
    """Return a message with other annotations than it came with."""
    return _joined(
        frame(
            message.type,
            [bytes(message.payload)],
            seq=message.seq,
            flags=message.flags,
            cell=message.corr_id,
            serializer_id=message.serializer_id,
            annotations=pack(annotations),
        )
    )


def refusal(message: IncomingMessage, error: BaseException) -> bytes:
    """Return the answer to a first message that is refused."""
    serializer = PLAIN_SERIALIZERS.get(message.serializer_id, PLAIN_SERIALIZERS[SerpentSerializer.serializer_id])
    number = serializer.serializer_id
    said = pack({LOST: words_of_lost(error)}) if isinstance(error, MachineLostError) else b""
    text = serializer.dumps(str(error))
    return _joined(frame(MSG_CONNECTFAIL, [text], seq=message.seq, serializer_id=number, annotations=said))


def _joined(buffers: list[Buffer]) -> bytes:
    return b"".join(map(bytes, buffers))
