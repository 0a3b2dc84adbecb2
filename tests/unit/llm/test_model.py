"""The model file, with a stand-in for the stub that Triton brings along."""

import sys
import types
from typing import ClassVar

import pytest

from backends.serving import errors


@pytest.fixture
def model(monkeypatch):
    """The module `backends.llm.model`, with requests and clients that the test makes up."""
    stub = types.ModuleType("triton_python_backend_utils")
    monkeypatch.setitem(sys.modules, stub.__name__, stub)
    for name in ("backends.llm.tensors", "backends.llm.model"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    import backends.llm.model as module

    yield module
    for name in ("backends.llm.tensors", "backends.llm.model"):
        sys.modules.pop(name, None)


class Client:
    heard: ClassVar[dict] = {}

    def __init__(self, request, tokens):
        if request == "no sender":
            raise RuntimeError("no sender")
        self.request = request
        Client.heard[request] = None

    def read_requested_outputs(self, inputs):
        pass

    def fail(self, error):
        if self.request == "deaf":
            raise OSError("the client cannot be reached")
        Client.heard[self.request] = error


def test_a_request_that_cannot_be_read_fails_alone(model, monkeypatch):
    def read(request):
        if request == "wrong":
            raise errors.InvalidValue("No.", "stream")
        if request not in ("good", "sums"):
            raise ValueError("a tensor in shared memory that is gone")
        return types.SimpleNamespace(name=request, cumulative_logprob=request == "sums")

    taken = []
    monkeypatch.setattr(model, "TextResponseSender", Client)
    monkeypatch.setattr(model, "read_request", read)
    monkeypatch.setattr(model, "Inputs", lambda request: request)
    monkeypatch.setattr(Client, "heard", {})
    one = model.TritonPythonModel()
    one._token_bytes, one._returns_cumulative_logprob = None, False
    one._frontend = types.SimpleNamespace(add_request=lambda request, client: taken.append(request.name))
    one.execute(["unreadable", "wrong", "no sender", "deaf", "sums", "good"])
    assert taken == ["good"]
    assert isinstance(Client.heard["unreadable"], errors.EngineFailed) and "gone" in str(Client.heard["unreadable"])
    assert isinstance(Client.heard["wrong"], errors.InvalidValue)
    assert Client.heard["good"] is None
    # Triton was told not to complete the configuration of a model that was built before there were sums.
    assert str(Client.heard["sums"]).startswith("[unsupported_option:return_cumulative_logprob]")
