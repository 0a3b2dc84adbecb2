"""Requests to a text model with Triton's client, without the gateway."""

import json
import queue
from dataclasses import dataclass
from typing import Any

import numpy as np
import tritonclient.grpc as client

from tests.triton.text_client import NAME


def tensor(name: str, value: Any) -> client.InferInput:
    match value:
        case bool():
            array, datatype = np.array([value]), "BOOL"
        case str():
            array, datatype = np.array([value.encode()], np.object_), "BYTES"
        case dict():
            array, datatype = np.array([json.dumps(value).encode()], np.object_), "BYTES"
        case list():
            array, datatype = np.array(value, np.int32), "INT32"
    infer_input = client.InferInput(name, array.shape, datatype)
    infer_input.set_data_from_numpy(array)
    return infer_input


@dataclass(slots=True)
class Stream:
    """A decoupled stream of the official client."""

    server: client.InferenceServerClient
    received: "queue.Queue[tuple[Any, Any]]"

    def infer(self, parameters: dict[str, Any] | None = None, **tensors: Any) -> list[Any]:
        """Return all responses to a request. Raises the error that the client reports."""
        inputs = [tensor(name, value) for name, value in tensors.items()]
        self.server.async_stream_infer(NAME, inputs, parameters=parameters, enable_empty_final_response=True)
        responses = []
        while True:
            result, error = self.received.get(timeout=60)
            if error is not None:
                raise error
            response = result.get_response()
            if response.outputs:
                responses.append(result)
            if response.parameters["triton_final_response"].bool_param:
                return responses


def opened(server: client.InferenceServerClient, **headers: str) -> Stream:
    received: queue.Queue[tuple[Any, Any]] = queue.Queue()
    server.start_stream(lambda result, error: received.put((result, error)), headers=headers)
    return Stream(server, received)


def texts(results: list[Any]) -> list[str]:
    return [result.as_numpy("text_output")[0].decode() for result in results]


def total(results: list[Any], name: str) -> int:
    return sum(int(result.as_numpy(name)[0]) for result in results)
