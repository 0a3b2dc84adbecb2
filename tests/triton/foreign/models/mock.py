"""A model with the tensors of those that NVIDIA's own frontend is tested with (triton-inference-server/server,
python/openai/tests): prompts of two dimensions without a batch, and nothing but what it declares. Its answers are
scripts; asked for no pieces it sends one response.
"""

import json

import numpy as np
import triton_python_backend_utils as pb_utils
from script import Journal, Script, scalar


class TritonPythonModel:
    def initialize(self, args):
        self.journal = Journal(args)
        self.outputs = {output["name"] for output in json.loads(args["model_config"])["output"]}

    def execute(self, requests):
        for request in requests:
            self.journal.note_inputs(request)
            sender = request.get_response_sender()
            for tensor in request.inputs():
                assert len(tensor.as_numpy().shape) == 2, (tensor.name(), tensor.as_numpy().shape)
            script = Script.read(scalar(request, "text_input"))
            for piece in script.say if scalar(request, "stream", True) else ["".join(script.say)]:
                sender.send(self.response(piece))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def response(self, piece):
        tensors = [pb_utils.Tensor("text_output", np.array([[piece.encode()]], np.object_))]
        if "num_output_tokens" in self.outputs:
            tensors += [
                pb_utils.Tensor(name, np.array([[1]], np.int32)) for name in ("num_input_tokens", "num_output_tokens")
            ]
        return pb_utils.InferenceResponse(tensors)
