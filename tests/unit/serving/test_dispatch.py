"""Dispatch of requests: a failing request affects only its own client."""

from typing import Any

from backends.serving.dispatch import dispatch_requests
from backends.serving.errors import GenerationError, InvalidValue


class Client:
    def __init__(self, request: Any) -> None:
        self.heard: list[str] = []
        if request == "no way back":
            raise RuntimeError(request)
        CLIENTS[request] = self

    def fail(self, error: GenerationError) -> None:
        self.heard.append(str(error))
        raise ConnectionError  # the client has disconnected


CLIENTS: dict[str, Client] = {}


def read(request: str, client: Client) -> str:
    assert CLIENTS[request] is client
    if request == "wrong":
        raise InvalidValue("This is wrong.", "prompt")
    if request == "torn":
        raise ValueError("tears")
    return request.upper()


def test_a_failing_request_does_not_stop_the_others() -> None:
    taken: list[tuple[str, Client]] = []
    requests = ["wrong", "torn", "no way back", "right"]
    dispatch_requests(requests, Client, read, lambda asked, client: taken.append((asked, client)))
    assert taken == [("RIGHT", CLIENTS["right"])]
    assert CLIENTS["wrong"].heard == ["[invalid_value:prompt] This is wrong."]
    assert CLIENTS["torn"].heard == ["[engine_failed] The request could not be read: tears"]
    assert CLIENTS["right"].heard == []
