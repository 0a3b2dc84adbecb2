"""The step from Triton's `execute` to a request frontend."""

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
    make_sender: Callable[[Any], Sender],
    parse: Callable[[Any, Sender], Parsed],
    add_request: Callable[[Parsed, Sender], None],
) -> None:
    """Parse each of Triton's requests and pass it to `add_request` with its response sender.

    A request that cannot be parsed is answered with the error. No request prevents the others from being dispatched.
    """
    for request in requests:
        try:
            _dispatch(request, make_sender(request), parse, add_request)
        except Exception:  # not even the error could be sent
            _log.exception("A request could not be answered.")


def _dispatch(
    request: Any, sender: Sender, parse: Callable[[Any, Sender], Parsed], add_request: Callable[[Parsed, Sender], None]
) -> None:
    try:
        parsed = parse(request, sender)
    except GenerationError as error:
        sender.fail(error)
    except Exception as error:
        _log.exception("A request could not be read.")
        sender.fail(EngineFailed(f"The request could not be read: {str(error)[:500]}"))
    else:
        add_request(parsed, sender)
