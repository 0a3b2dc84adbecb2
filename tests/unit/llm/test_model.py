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


@pytest.mark.parametrize(("kind", "number", "gpu"), [("GPU", "2", 2), ("CPU", "0", None), ("MODEL", "0", None)])
def test_the_instance_group_chooses_the_gpu(model, monkeypatch, kind, number, gpu):
    found = []

    def read_options(parameters, gpu):
        found.append(gpu)
        raise ValueError("onnxruntime has no CUDA")

    monkeypatch.setattr(model, "exit_with_parent", lambda: None)
    monkeypatch.setattr(model, "read_options", read_options)
    model.pb_utils.TritonModelException = RuntimeError
    arguments = {"model_config": "{}", "model_repository": "/models/tiny", "model_version": "1"}
    with pytest.raises(RuntimeError, match="/models/tiny/1 cannot be loaded: onnxruntime has no CUDA"):
        model.TritonPythonModel().initialize(
            arguments | {"model_instance_kind": kind, "model_instance_device_id": number}
        )
    assert found == [gpu]


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
