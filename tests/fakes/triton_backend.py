"""The fake Triton with real backends: it calls a backend's `model.py`, and sends what that responds."""

import asyncio
import json
import sys
import types
from collections.abc import AsyncIterator
from importlib import import_module
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as config_pb
from tritonclient.grpc import service_pb2 as pb
from tritonclient.utils import deserialize_bytes_tensor, np_to_triton_dtype, serialize_byte_tensor, triton_to_np_dtype

from tests.fakes.scripted_model import Fail
from tests.fakes.triton import FakeTriton
from tests.fakes.triton_messages import InferCall

_FINAL = 1
_STATUS = {
    "INTERNAL": grpc.StatusCode.INTERNAL,
    "INVALID_ARG": grpc.StatusCode.INVALID_ARGUMENT,
    "UNAVAILABLE": grpc.StatusCode.UNAVAILABLE,
    "CANCELLED": grpc.StatusCode.CANCELLED,
}
"""The error codes of Triton's Python module, and what they become on the wire."""


class _Tensor:
    def __init__(self, name: str, array: Any) -> None:
        self.name, self._array = name, array

    def as_numpy(self) -> Any:
        return self._array


class _Error:
    def __init__(self, message: str, code: str = "INTERNAL") -> None:
        self.message, self.status = message, _STATUS[code]


class _Response:
    def __init__(self, outputs: list[_Tensor], error: _Error | None = None) -> None:
        self.outputs, self.error = outputs, error


class _Request:
    """One of Triton's requests, and its response sender."""

    def __init__(self, request: pb.ModelInferRequest) -> None:
        self._loop = asyncio.get_running_loop()
        self.responses: asyncio.Queue[tuple[_Response, int]] = asyncio.Queue()
        self.cancelled = False
        self.tensors = {
            tensor.name: _Tensor(tensor.name, _array(tensor, raw))
            for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True)
        }

    def parameters(self) -> str:
        return "{}"

    def get_response_sender(self) -> "_Request":
        return self

    def is_cancelled(self) -> bool:
        return self.cancelled

    def send(self, response: _Response, flags: int = 0) -> None:
        self._loop.call_soon_threadsafe(self.responses.put_nowait, (response, flags))


def _array(tensor: Any, raw: bytes) -> Any:
    if tensor.datatype == "BYTES":
        return deserialize_bytes_tensor(raw).reshape(tensor.shape)
    return np.frombuffer(raw, triton_to_np_dtype(tensor.datatype)).reshape(tensor.shape)


def install_triton_module() -> None:
    """Put a substitute for Triton's Python module into `sys.modules`."""
    module: Any = types.ModuleType("triton_python_backend_utils")
    module.Tensor, module.InferenceResponse, module.TritonError = _Tensor, _Response, _Error
    for code in _STATUS:
        setattr(_Error, code, code)
    module.TRITONSERVER_RESPONSE_COMPLETE_FINAL = _FINAL
    module.get_input_tensor_by_name = lambda request, name: request.tensors.get(name)
    sys.modules[module.__name__] = module


class BackendModel:
    """A folder of a model repository, with its backend loaded."""

    def __init__(self, folder: Path) -> None:
        install_triton_module()
        self._config = text_format.Parse((folder / "config.pbtxt").read_text(), config_pb.ModelConfig())
        self.name = self._config.name
        self.backend: Any = import_module(f"backends.{self._config.backend}.model").TritonPythonModel()
        arguments = {"model_config": json.dumps({"name": self.name}), "model_name": self.name}
        self.backend.initialize({**arguments, "model_repository": str(folder), "model_version": "1"})

    def config(self) -> config_pb.ModelConfig:
        return self._config


class BackendTriton(FakeTriton):
    """A fake Triton whose models are run by their backends."""

    def __init__(self, *models: BackendModel) -> None:
        super().__init__(models)  # type: ignore[arg-type]

    async def _play(
        self, request: pb.ModelInferRequest, call: InferCall
    ) -> AsyncIterator[pb.ModelInferResponse | Fail]:
        model: Any = self.models[call.model]
        received = _Request(request)
        model.backend.execute([received])
        try:
            flags = 0
            while flags != _FINAL:
                response, flags = await received.responses.get()
                if response.error:
                    yield Fail(response.error.message, response.error.status)
                    return
                yield _message(call, response, final=flags == _FINAL)
        finally:
            received.cancelled = True

    async def stop(self) -> None:
        await super().stop()
        for model in self.models.values():
            model.backend.finalize()  # type: ignore[attr-defined]


def _message(call: InferCall, response: _Response, *, final: bool) -> pb.ModelInferResponse:
    message = pb.ModelInferResponse(model_name=call.model, model_version="1", id=call.id)
    message.parameters["triton_final_response"].bool_param = final
    for tensor in response.outputs:
        array = tensor.as_numpy()
        datatype = np_to_triton_dtype(array.dtype)
        raw = serialize_byte_tensor(array).item() if datatype == "BYTES" else array.tobytes()
        message.outputs.add(name=tensor.name, datatype=datatype, shape=array.shape)
        message.raw_output_contents.append(raw)
    return message
