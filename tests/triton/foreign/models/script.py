"""The script of a scripted engine: its prompt is JSON.

    {"say": ["He", "llo"], "reason": "stop", "pause": 0.01, "fail": null, "bytes": false, "deaf": false}

`say` are the texts of its responses, `pause` is in seconds before each but the first, `fail` the failure after them.
`bytes` sends each byte by itself, as tokens of half a character do; `deaf` ignores stop words.
"""

import json
import os
import threading
from dataclasses import dataclass

_writing = threading.Lock()


@dataclass
class Script:
    say: list
    reason: str = "stop"
    pause: float = 0.0
    fail: str | None = None
    bytes: bool = False
    deaf: bool = False

    @classmethod
    def read(cls, prompt: str) -> "Script":
        # The gateway sends prompts of its own, so any text has a response.
        return cls(**json.loads(prompt)) if prompt.startswith("{") else cls([" ok"])


class Journal:
    def __init__(self, args: dict) -> None:
        parameters = json.loads(args["model_config"])["parameters"]
        self.parameters = {name: value["string_value"] for name, value in parameters.items()}
        self.model = args["model_name"]

    def note(self, event: str, request_id: str = "", **more: object) -> None:
        line = json.dumps({"model": self.model, "event": event, "id": request_id, **more}) + "\n"
        with _writing:
            descriptor = os.open(self.parameters["journal"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(descriptor, line.encode())
            os.close(descriptor)

    def note_inputs(self, request) -> None:
        inputs = {}
        for tensor in request.inputs():
            array = tensor.as_numpy()
            values = [v.decode() if isinstance(v, bytes) else v.item() for v in array.reshape(-1)]
            inputs[tensor.name()] = {"dtype": str(array.dtype), "shape": list(array.shape), "values": values}
        self.note("received", request.request_id(), inputs=inputs)


def scalar(request, name, default=None):
    """Return the single value of an input; strings as text."""
    import triton_python_backend_utils as pb_utils

    tensor = pb_utils.get_input_tensor_by_name(request, name)
    if tensor is None:
        return default
    value = tensor.as_numpy().reshape(-1)[0]
    return value.decode() if isinstance(value, bytes) else value.item()
