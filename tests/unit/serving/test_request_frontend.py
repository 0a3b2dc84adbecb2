"""The request front of all backends: the backend of docs/extending.md between Triton's requests and their senders."""

import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from backends.serving.dispatch import dispatch_requests
from backends.serving.errors import InvalidValue
from tests.fakes.examples import import_example

FINAL = 1
"""Triton's flag of a last response."""


class TritonSender:
    """A substitute for Triton's response sender. Like that, it must not be used after the last response."""

    def __init__(self) -> None:
        self.responses: list[str] = []
        self.cancelled = False
        self.completed = threading.Event()

    def is_cancelled(self) -> bool:
        assert not self.completed.is_set()
        return self.cancelled

    def send(self, response: str, flags: int = 0) -> None:
        assert not self.completed.is_set(), "a response after the last"
        self.responses.append(response)
        if flags == FINAL:
            self.completed.set()

    def wait(self) -> list[str]:
        assert self.completed.wait(60), "no last response"
        return self.responses


class TritonRequest:
    def __init__(self, text: str) -> None:
        self.text = text
        self.sender = TritonSender()

    def get_response_sender(self) -> TritonSender:
        return self.sender


class Splitter:
    """Splits texts into words; waits at `gate`, and refuses the text `invalid`."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.started: list[str] = []

    def __call__(self, text: str) -> list[str]:
        self.started.append(text)
        assert self.gate.wait(60)
        if text == "invalid":
            raise InvalidValue("No words.", "text")
        return text.split()


class Backend:
    def __init__(self, module: Any) -> None:
        self.split = Splitter()
        self.stats = types.SimpleNamespace(requests_cancelled=0)
        self.frontend = module.ReverseFrontend(self.stats, self.split)
        self._sender = module.WordSender

    def execute(self, *texts: str) -> list[TritonSender]:
        """Take requests as a backend's `model.py` does."""
        requests = [TritonRequest(text) for text in texts]
        dispatch_requests(requests, self._sender, lambda request, sender: request.text, self.frontend.add_request)
        return [request.sender for request in requests]


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[Backend]:
    """The backend `reverse`, with a substitute for Triton's Python module."""
    stub = types.ModuleType("triton_python_backend_utils")
    stub.TritonError = lambda text, code: f"{code}: {text}"  # type: ignore[attr-defined]
    for code in ("INTERNAL", "INVALID_ARG", "UNAVAILABLE", "CANCELLED"):
        setattr(stub.TritonError, code, code)
    stub.Tensor = lambda name, array: array[0].decode()  # type: ignore[attr-defined]
    stub.InferenceResponse = lambda outputs, error=None: error or outputs[0]  # type: ignore[attr-defined]
    stub.TRITONSERVER_RESPONSE_COMPLETE_FINAL = FINAL  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, stub.__name__, stub)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("backends.serving.triton", "backends.reverse.model"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    opened = Backend(import_example("operation", "backends.reverse.model"))
    yield opened
    opened.split.gate.set()
    opened.frontend.close()
    for name in ("backends.serving.triton", "backends.reverse.model"):
        sys.modules.pop(name, None)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true"
        time.sleep(0.01)


def test_responses_arrive_in_order_and_one_is_the_last(backend: Backend) -> None:
    words = [str(number) for number in range(200)]
    first, second = backend.execute(" ".join(words), "one")
    assert first.wait() == words
    assert second.wait() == ["one"]
    wait_for(lambda: backend.frontend.active_size == 0)
    assert backend.stats.requests_cancelled == 0


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("invalid", "INVALID_ARG: [invalid_value:text] No words."),
        ("", "INTERNAL: [engine_failed] The request could not be prepared: not enough values to unpack"),
    ],
)
def test_an_exception_becomes_the_last_response(backend: Backend, text: str, error: str) -> None:
    (failed,) = backend.execute(text)
    (response,) = failed.wait()
    assert response.startswith(error)
    assert backend.execute("next")[0].wait() == ["next"]


def test_a_full_queue_refuses_until_a_request_ends(backend: Backend) -> None:
    backend.split.gate.clear()
    *admitted, refused = backend.execute("a", "b", "c", "d")
    assert refused.wait() == ["UNAVAILABLE: [overloaded] Three texts wait already."]
    backend.split.gate.set()
    assert [sender.wait() for sender in admitted] == [["a"], ["b"], ["c"]]
    assert backend.execute("e")[0].wait() == ["e"]


def test_a_disconnect_ends_a_request_before_and_after_it_starts(backend: Backend) -> None:
    backend.split.gate.clear()
    running, queued, other = backend.execute("running", "queued", "other")
    wait_for(lambda: backend.split.started == ["running"])
    running.cancelled = queued.cancelled = True
    for sender in (running, queued):
        assert sender.wait() == ["CANCELLED: [cancelled] The request was cancelled."]
    backend.split.gate.set()
    assert other.wait() == ["other"]
    assert backend.split.started == ["running", "other"]
    assert backend.stats.requests_cancelled == 2


def test_closing_fails_queued_and_later_requests(backend: Backend) -> None:
    backend.split.gate.clear()
    running, queued = backend.execute("running", "queued")
    wait_for(lambda: backend.split.started == ["running"])
    closing = threading.Thread(target=backend.frontend.close)
    closing.start()
    wait_for(lambda: backend.frontend.pool._shutdown)
    unloaded = ["INTERNAL: [engine_failed] The model is being unloaded."]
    assert backend.execute("late")[0].wait() == unloaded
    backend.split.gate.set()
    closing.join(60)
    assert running.wait() == ["running"]  # a running step finishes, and its output is sent
    assert queued.wait() == unloaded
    assert backend.split.started == ["running"]
