"""The model file of the LLM backend, with a substitute for Triton's Python module."""

import sys
import types
from typing import ClassVar

import pytest

from backends.serving import errors


@pytest.fixture
def model(monkeypatch):
    """The module `backends.llm.model`, with a substitute for Triton's Python module."""
    stub = types.ModuleType("triton_python_backend_utils")
    monkeypatch.setitem(sys.modules, stub.__name__, stub)
    for name in ("backends.llm.tensors", "backends.llm.model"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    import backends.llm.model as module

    yield module
    for name in ("backends.llm.tensors", "backends.llm.model"):
        sys.modules.pop(name, None)


class RecordingSender:
    """A response sender that records the error of each request; None if it has none."""

    failures: ClassVar[dict[str, errors.GenerationError | None]] = {}

    def __init__(self, request, token_bytes):
        if request == "no sender":
            raise RuntimeError("no sender")
        self.request = request
        RecordingSender.failures[request] = None

    def read_requested_outputs(self, inputs):
        pass

    def fail(self, error):
        if self.request == "unreachable":
            raise OSError("the client cannot be reached")
        RecordingSender.failures[self.request] = error


def test_a_request_that_cannot_be_read_fails_alone(model, monkeypatch):
    def read(request):
        if request == "invalid":
            raise errors.InvalidValue("No.", "stream")
        if request not in ("valid", "cumulative logprob"):
            raise ValueError("a tensor in shared memory that is gone")
        return types.SimpleNamespace(name=request, cumulative_logprob=request == "cumulative logprob")

    admitted = []
    failures: dict[str, errors.GenerationError | None] = {}
    monkeypatch.setattr(model, "TextResponseSender", RecordingSender)
    monkeypatch.setattr(model, "read_request", read)
    monkeypatch.setattr(model, "Inputs", lambda request: request)
    monkeypatch.setattr(RecordingSender, "failures", failures)
    triton_model = model.TritonPythonModel()
    triton_model._token_bytes, triton_model._returns_cumulative_logprob = None, False
    triton_model._frontend = types.SimpleNamespace(add_request=lambda request, sender: admitted.append(request.name))
    triton_model.execute(["unreadable", "invalid", "no sender", "unreachable", "cumulative logprob", "valid"])
    assert admitted == ["valid"]
    assert isinstance(failures["unreadable"], errors.EngineFailed) and "gone" in str(failures["unreadable"])
    assert isinstance(failures["invalid"], errors.InvalidValue)
    assert failures["valid"] is None
    # An older build declares no such output, and Triton can be configured not to complete its configuration.
    assert str(failures["cumulative logprob"]).startswith("[unsupported_option:return_cumulative_logprob]")
