"""Requests as Triton hands them over, brought to where they are answered."""

import logging
from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar

from backends.serving.errors import EngineFailed, GenerationError

_log = logging.getLogger(__name__)


class _ErrorSender(Protocol):
    def fail(self, error: GenerationError) -> None: ...


Parsed = TypeVar("Parsed")
Sender = TypeVar("Sender", bound=_ErrorSender)


def dispatch_requests(
    requests: Iterable[Any],
    client_of: Callable[[Any], Sender],
    read: Callable[[Any, Sender], Parsed],
    take: Callable[[Parsed, Sender], None],
) -> None:
    """Hand what `read` makes of each request to `take`, with the way back to its client, or answer what is wrong with
    it. None of them keeps the others from being taken."""
    for request in requests:
        try:
            _dispatch(request, client_of(request), read, take)
        except Exception:  # not even the error could be sent
            _log.exception("A request could not be answered.")


def _dispatch(
    request: Any, client: Sender, read: Callable[[Any, Sender], Parsed], take: Callable[[Parsed, Sender], None]
) -> None:
    try:
        asked = read(request, client)
    except GenerationError as error:
        client.fail(error)
    except Exception as error:
        _log.exception("A request could not be read.")
        client.fail(EngineFailed(f"The request could not be read: {str(error)[:500]}"))
    else:
        take(asked, client)
