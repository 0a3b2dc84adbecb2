"""Inputs of a request, as tensors or request parameters, with a substitute for Triton's Python module."""

import importlib
import json
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from backends.serving.errors import GenerationError, InvalidValue, UnsupportedOption

_MODULES = (
    "backends.serving.triton",
    "backends.llm.tensors",
    "backends.embedding.tensors",
    "backends.diffusion.tensors",
)


@dataclass
class Tensor:
    values: Any

    def as_numpy(self) -> Any:
        return self.values


@dataclass
class Request:
    tensors: dict[str, Any]
    document: str | bytes

    def parameters(self) -> str:
        return self.document if isinstance(self.document, str) else self.document.decode()


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """A function that imports a module which needs Triton's Python module."""
    stub = types.ModuleType("triton_python_backend_utils")
    stub.get_input_tensor_by_name = lambda request, name: request.tensors.get(name)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, stub.__name__, stub)
    for name in _MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)

    yield importlib.import_module
    for name in _MODULES:
        sys.modules.pop(name, None)


def bytes_tensor(*values: bytes) -> Tensor:
    return Tensor(np.array(values, np.object_))


@pytest.fixture
def inputs(load: Callable[[str], Any]) -> Callable[..., Any]:
    def make(parameters: Any = None, **tensors: Tensor) -> Any:
        document = parameters if isinstance(parameters, str | bytes) else json.dumps(parameters or {})
        return load("backends.serving.triton").Inputs(Request(tensors, document))

    return make


def test_a_parameter_replaces_an_absent_tensor(inputs: Callable[..., Any]) -> None:
    request = inputs(
        {"steps": 7, "stream": True, "prompt": "é", "scale": 1.5, "seed": 2**63, "text": "one", "width": 5},
        width=Tensor(np.array([64], np.int32)),
    )
    assert (request.integer("steps"), request.flag("stream"), request.text("prompt")) == (7, True, "é".encode())
    assert (request.number("scale"), request.integer("seed", 0, 2**64 - 1)) == (1.5, 2**63)
    assert request.texts("text") == [b"one"]
    assert request.integer("width") == 64
    assert request.remaining_parameters() == {}


def test_absent_inputs_are_none(inputs: Callable[..., Any]) -> None:
    request = inputs()
    for read in (request.integer, request.flag, request.text, request.number, request.texts, request.array):
        assert read("anything") is None


def test_values_may_be_strings(inputs: Callable[..., Any]) -> None:
    """Older Triton clients can send fractions only as strings."""
    request = inputs({"steps": "7", "stream": "false", "scale": "1.5"})
    assert (request.integer("steps"), request.flag("stream"), request.number("scale")) == (7, False, 1.5)


@pytest.mark.parametrize(
    ("read", "value"),
    [
        ("integer", 2**31),
        ("integer", "2147483648"),
        ("integer", 1.0),
        ("integer", True),
        ("flag", 1),
        ("flag", "yes"),
        ("number", "nan"),
        ("number", float("nan")),
        ("number", float("inf")),
        ("text", 5),
        ("texts", 5),
        ("array", "[1]"),
        ("array", False),
    ],
)
def test_a_wrong_parameter_is_refused_by_name(inputs: Callable[..., Any], read: str, value: object) -> None:
    with pytest.raises(InvalidValue, match=r"^\[invalid_value:name\] "):
        getattr(inputs({"name": value}), read)("name")


def test_a_tensor_of_several_elements_is_refused(inputs: Callable[..., Any]) -> None:
    with pytest.raises(InvalidValue, match="2"):
        inputs(steps=Tensor(np.array([1, 2], np.int32))).integer("steps")


def test_parameters_of_the_protocol_are_ignored(inputs: Callable[..., Any]) -> None:
    reserved = {"priority": 1, "timeout": 5, "sequence_id": 4, "sequence_start": True, "sequence_end": True}
    request = inputs(reserved | {"id": "a", "binary_data_output": False, "triton_something": 1, "step": 3})
    assert request.remaining_parameters() == {"step": 3}
    with pytest.raises(UnsupportedOption, match=r"^\[unsupported_option:step\] "):
        request.reject_remaining_parameters()
    inputs(reserved).reject_remaining_parameters()


@pytest.mark.parametrize("document", [b'{"stop": "\xff"}', "{", '{"a": "' + "x" * 1_048_576 + '"}'])
def test_malformed_parameters_are_invalid_values(inputs: Callable[..., Any], document: Any) -> None:
    with pytest.raises(InvalidValue, match=r"^\[invalid_value:parameters\] "):
        inputs(document)


def test_an_llm_request_may_consist_of_parameters(load: Callable[[str], Any], inputs: Callable[..., Any]) -> None:
    read = load("backends.llm.tensors").read_request
    request = read(inputs({"text_input": "hi", "stream": True, "temperature": 0, "return_cumulative_logprob": True}))
    assert (request.text, request.stream, request.exclude_input, request.cumulative_logprob) == (
        b"hi",
        True,
        True,
        True,
    )
    assert request.sampling == {"temperature": 0}
    # The tensor overrides all parameters, as in NVIDIA's backend, whose sample client sends both.
    tensor = bytes_tensor(b'{"max_tokens": 2}')
    assert read(inputs({"max_tokens": "9", "lora": 1}, sampling_parameters=tensor)).sampling == b'{"max_tokens": 2}'
    with pytest.raises(InvalidValue, match=r"^\[invalid_value:token_ids\] "):
        read(inputs({"token_ids": "[1, 2]"}))


def test_an_embedding_request_may_consist_of_parameters(load: Callable[[str], Any], inputs: Callable[..., Any]) -> None:
    read = load("backends.embedding.tensors").read_request
    request = read(inputs({"text": "hi", "dimensions": "64", "purpose": "query", "truncate": True}))
    assert (request.texts, request.dimensions, request.purpose, request.truncate) == ([b"hi"], 64, "query", True)
    with pytest.raises(UnsupportedOption, match=r"^\[unsupported_option:dimension\] "):
        read(inputs({"text": "hi", "dimension": 64}))


def test_an_image_request_may_consist_of_parameters(load: Callable[[str], Any], inputs: Callable[..., Any]) -> None:
    read = load("backends.diffusion.tensors").read_request
    request = read(
        inputs({"steps": 3, "guidance_scale": "1.5", "output_format": "jpeg"}, prompt=bytes_tensor(b"a cat"))
    )
    assert (request.prompt, request.steps, request.guidance_scale, request.output_format) == ("a cat", 3, 1.5, "jpeg")
    invalid: list[dict[str, object]] = [{"step": 3}, {"quality": "high"}, {"image": 5}]
    for parameter in invalid:
        with pytest.raises(GenerationError) as raised:
            read(inputs({"prompt": "a cat", **parameter}))
        assert raised.value.param == next(iter(parameter))


def test_a_video_request_may_consist_of_parameters(load: Callable[[str], Any], inputs: Callable[..., Any]) -> None:
    read = load("backends.diffusion.tensors").read_video_request
    request = read(
        inputs(
            {"num_frames": 9, "fps": "12", "seed": 5}, prompt=bytes_tensor(b"a cat"), frames=bytes_tensor(b"1", b"2")
        )
    )
    assert (request.prompt, request.num_frames, request.fps, request.seed) == ("a cat", 9, 12, 5)
    assert (request.frames, request.images, request.nbytes) == ((b"1", b"2"), (), 7)
    for parameter in ({"num_images": 3}, {"fps": "fast"}, {"frames": 5}):
        with pytest.raises(GenerationError) as raised:
            read(inputs({"prompt": "a cat", **parameter}))
        assert raised.value.param == next(iter(parameter))
