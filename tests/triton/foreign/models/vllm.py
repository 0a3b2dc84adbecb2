"""The vLLM backend with a script for vLLM. Its ways are those of `src/utils/request.py`: what was added with every
response, counts without a dimension or one for each answer, `str(None)` while there is no reason, no prompt in streams.
"""

import json
import threading
import time

import numpy as np
import triton_python_backend_utils as pb_utils
from script import Journal, Script, scalar


class TritonPythonModel:
    def initialize(self, args):
        self.journal = Journal(args)

    def execute(self, requests):
        for request in requests:
            self.journal.note_inputs(request)
            threading.Thread(target=self.answer, args=(request, request.get_response_sender()), daemon=True).start()
        return None

    def answer(self, request, sender):
        final = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
        try:
            prompt = scalar(request, "text_input")
            if scalar(request, "stream", False) and not scalar(request, "exclude_input_in_output", True):
                raise ValueError("When streaming, `exclude_input_in_output` = False is not allowed.")
            script = Script.read(prompt)
            parameters = json.loads(scalar(request, "sampling_parameters", "{}"))
            structure = parameters.get("structured_outputs")
            if structure is not None:
                json.loads(structure)
            n, limit = parameters.get("n", 1), parameters.get("max_tokens", 16)
            for i, piece in enumerate(script.say):
                if i and script.pause:
                    time.sleep(script.pause)
                if sender.is_cancelled():
                    self.journal.note("cancelled", request.request_id())
                    error = pb_utils.TritonError(message="Request was cancelled", code=pb_utils.TritonError.CANCELLED)
                    sender.send(pb_utils.InferenceResponse(error=error), flags=final)
                    return
                cut = i + 1 == limit < len(script.say)
                last = cut or (i + 1 == len(script.say) and not script.fail)
                reason = str(("length" if cut else script.reason) if last else None)
                logprobs = [{"7": {"logprob": -0.5, "rank": 1, "decoded_token": piece}}]
                tensors = [
                    pb_utils.Tensor("text_output", np.asarray([piece.encode()] * n, np.object_)),
                    pb_utils.Tensor("finish_reason", np.asarray([reason] * n, np.object_)),
                    pb_utils.Tensor("num_input_tokens", np.asarray(len(prompt.encode()), np.uint32)),
                    pb_utils.Tensor("num_output_tokens", np.asarray([1] * n, np.uint32)),
                ]
                if scalar(request, "return_logprobs", False):
                    written = json.dumps(logprobs) if parameters.get("logprobs") is not None else "null"
                    tensors.append(pb_utils.Tensor("logprobs", np.asarray([written.encode()] * n, np.object_)))
                sender.send(pb_utils.InferenceResponse(output_tensors=tensors), flags=final if last else 0)
                if last:
                    return
            raise RuntimeError(script.fail)
        except Exception as error:
            nothing = pb_utils.Tensor("text_output", np.asarray(["N/A"], dtype=np.object_))
            failure = pb_utils.TritonError(f"Error generating stream: {error}")
            sender.send(pb_utils.InferenceResponse(output_tensors=[nothing], error=failure), flags=final)
