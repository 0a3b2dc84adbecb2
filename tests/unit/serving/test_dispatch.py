"""Dispatch of requests: a failing request affects only its own client."""

from typing import Any

from backends.serving.dispatch import dispatch_requests
from backends.serving.errors import GenerationError, InvalidValue


class RecordingSender:
    """A response sender of a client that has disconnected; it records its errors."""

    def __init__(self, request: Any) -> None:
        self.errors: list[str] = []
        if request == "no sender":
            raise RuntimeError(request)
        SENDERS[request] = self

    def fail(self, error: GenerationError) -> None:
        self.errors.append(str(error))
        raise ConnectionError


SENDERS: dict[str, RecordingSender] = {}


def read(request: str, sender: RecordingSender) -> str:
    assert SENDERS[request] is sender
    if request == "invalid":
        raise InvalidValue("This is wrong.", "prompt")
    if request == "unreadable":
        raise ValueError("a tensor is cut off")
    return request.upper()


def test_a_failing_request_does_not_stop_the_others() -> None:
    admitted: list[tuple[str, RecordingSender]] = []
    requests = ["invalid", "unreadable", "no sender", "valid"]
    dispatch_requests(requests, RecordingSender, read, lambda request, sender: admitted.append((request, sender)))
    assert admitted == [("VALID", SENDERS["valid"])]
    assert SENDERS["invalid"].errors == ["[invalid_value:prompt] This is wrong."]
    assert SENDERS["unreadable"].errors == ["[engine_failed] The request could not be read: a tensor is cut off"]
    assert SENDERS["valid"].errors == []
