"""Framings: formats of streamed response bodies, which encode each event as bytes.

`gateway.http.delivery` handles disconnects, slow readers and late failures in the same way for every framing. A new
framing, NDJSON for example, is one class here and one function there.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from gateway.errors import GatewayError

_LINE_SEPARATORS = ((b"\xc2\x85", b"\\u0085"), (b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029"))
"""Characters that JSON may contain unescaped but that many clients read as the end of a line, as Python's `splitlines`
does. Each entry is the character in UTF-8 and its JSON escape."""

Event = TypeVar("Event")
EventT = TypeVar("EventT", contravariant=True)


class Framing(Protocol[EventT]):
    """The format of a response body that is sent event by event."""

    media_type: str
    """The content type. Starlette adds `charset=utf-8` to text types."""
    headers: Mapping[str, str]
    """Further headers of the response."""

    def encode(self, event: EventT) -> bytes:
        """Return the bytes of one event. Empty bytes send nothing."""
        ...

    def encode_end(self) -> bytes:
        """Return the bytes that follow the last event of a complete response."""
        ...

    def encode_error(self, error: GatewayError) -> bytes | None:
        """Return the bytes that end a response whose events failed after the first one.

        None: the format has no place for an error, so the connection is closed before the body is complete.
        """
        ...


@dataclass(frozen=True, slots=True)
class NamedEvent:
    """The data of a server-sent event with a name. `EventSource` in browsers dispatches events by name."""

    name: str
    data: bytes


class ServerSentEvents(Generic[Event]):
    """Server-sent events: https://html.spec.whatwg.org/multipage/server-sent-events.html"""

    media_type = "text/event-stream"
    # Proxies must neither buffer nor cache events.
    headers: Mapping[str, str] = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}

    def __init__(
        self,
        render: Callable[[Event], Iterable[bytes | NamedEvent]],
        render_error: Callable[[GatewayError], bytes | NamedEvent],
        done: bytes | NamedEvent | None = None,
    ) -> None:
        """`render` returns the server-sent events for one event of the operation; the data of each is JSON.

        `render_error` returns the data of the event that reports a late failure. `done` is the data of the event after
        the last one of a complete stream, `[DONE]` for example; None: there is none.
        """
        self._render = render
        self._render_error = render_error
        self._done = done

    def encode(self, event: Event) -> bytes:
        """Return the server-sent events that `render` makes of `event`."""
        return b"".join([_format_event(data) for data in self._render(event)])

    def encode_end(self) -> bytes:
        """Return the `done` event."""
        return b"" if self._done is None else _format_event(self._done)

    def encode_error(self, error: GatewayError) -> bytes:
        """Return an event with the error. The `done` event does not follow it."""
        return _format_event(self._render_error(error))


class RawBytes:
    """The bytes of a file: audio, video, an image. A late failure closes the connection before the body is complete.

    Clients notice that by the length or the chunked encoding.
    """

    def __init__(self, media_type: str, headers: Mapping[str, str]) -> None:
        """`headers` may have a `Content-Length`. Without one the body is sent in chunked encoding."""
        self.media_type = media_type
        self.headers = headers

    def encode(self, event: bytes) -> bytes:
        """Return the bytes as they are."""
        return event

    def encode_end(self) -> bytes:
        """Return no bytes: the file is complete."""
        return b""

    def encode_error(self, error: GatewayError) -> None:
        """Return None: bytes of a file cannot report an error."""
        return None


def _format_event(data: bytes | NamedEvent) -> bytes:
    """Return one server-sent event. Its data is JSON or a word, so only JSON strings can contain line separators."""
    start = b"data: "
    if isinstance(data, NamedEvent):
        start, data = b"event: " + data.name.encode() + b"\ndata: ", data.data
    if 0xE2 in data or 0xC2 in data:  # the first bytes of the separators: searching for one byte is cheap
        for char, escaped in _LINE_SEPARATORS:
            data = data.replace(char, escaped)
    return start + data + b"\n\n"
