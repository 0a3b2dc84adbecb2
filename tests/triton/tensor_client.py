"""A stream of requests with Triton's client, without the gateway, to a model of images or of videos."""

import queue
import time
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import tritonclient.grpc as client

from tritonic.embedded import EmbeddedTriton

TYPES = {
    **dict.fromkeys(("prompt", "negative_prompt", "output_format", "image", "mask", "frames"), "BYTES"),
    **dict.fromkeys(("guidance_scale", "strength"), "FP32"),
    "seed": "UINT64",
}
ARRAYS = {"BYTES": np.object_, "FP32": np.float32, "UINT64": np.uint64, "INT32": np.int32}


class TensorClient:
    """A stream of requests, which may overlap."""

    def __init__(self, url: str, model: str) -> None:
        self.server = client.InferenceServerClient(url)
        self.model = model
        self.received: queue.Queue[tuple[Any, Any]] = queue.Queue()
        self.server.start_stream(lambda result, error: self.received.put((result, error)))

    def send(self, request: str = "", parameters: dict[str, Any] | None = None, **tensors: Any) -> None:
        inputs = []
        for name, value in {"prompt": "a red cat", **tensors}.items():
            kind = TYPES.get(name, "INT32")
            value = value.encode() if isinstance(value, str) else value
            array = np.array(value if isinstance(value, list) else [value], ARRAYS[kind])
            inputs.append(client.InferInput(name, array.shape, kind))
            inputs[-1].set_data_from_numpy(array)
        self.server.async_stream_infer(
            self.model, inputs, request_id=request, parameters=parameters, enable_empty_final_response=True
        )

    def responses(self, requests: int = 1) -> list[dict[str, Any]]:
        """Return all responses of `requests` requests. Raises the error of any of them."""
        found = []
        while requests:
            result, error = self.received.get(timeout=120)
            if error is not None:
                raise error
            response = result.get_response()
            outputs = {output.name: result.as_numpy(output.name)[0] for output in response.outputs}
            found.append({"request": response.id, **outputs})
            requests -= response.parameters["triton_final_response"].bool_param
        return found

    def __call__(self, **tensors: Any) -> list[dict[str, Any]]:
        self.send(**tensors)
        return self.responses()

    def close(self, *, cancel: bool = True) -> None:
        self.server.stop_stream(cancel_requests=cancel)
        self.server.close()


def diffusion_stat(triton: EmbeddedTriton, model: str, name: str) -> int:
    """Return a metric of the diffusion backend."""
    text = httpx.get(triton.metrics_url, trust_env=False).text
    (line,) = (line for line in text.splitlines() if line.startswith(f'diffusion_{name}{{model="{model}"}}'))
    return int(float(line.rsplit(" ", 1)[1]))


def until(condition: Callable[[], bool], seconds: float = 20) -> float:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
    return time.monotonic()
