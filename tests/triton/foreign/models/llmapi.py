"""llmapi/tensorrt_llm with a script for the LLM API. Its ways are those of `1/model.py`: the whole text so far with
every response, the prompt before it unless it is excluded, `str(None)` while there is no reason, numbers as strings,
"N/A" beside failures, one response where it is not decoupled, and a loop that looks for hang-ups every 100 ms.

The parameter `grow` = `delta` makes it a model of somebody who repaired it. `max_seq_len` makes its engine one of
TensorRT, for which `_check_arguments` of the LLM API refuses prompt (here in characters) and `max_tokens` together
beyond that length.
"""

import threading
import time

import numpy as np
import triton_python_backend_utils as pb_utils
from script import Journal, Script, scalar


class TritonPythonModel:
    def initialize(self, args):
        import json

        self.journal = Journal(args)
        self.decoupled = pb_utils.using_decoupled_model_transaction_policy(json.loads(args["model_config"]))
        self.deltas = self.journal.parameters.get("grow") == "delta"

    def execute(self, requests):
        for request in requests:
            self.journal.note_inputs(request)
            threading.Thread(target=self.answer, args=(request, request.get_response_sender()), daemon=True).start()
        return None

    def answer(self, request, sender):
        final = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
        try:
            shape = pb_utils.get_input_tensor_by_name(request, "text_input").as_numpy().shape
            if len(shape) > 1:
                raise ValueError("The current implementation only supports text_input being a 1D tensor.")
            streaming = scalar(request, "streaming", False)
            if streaming and not self.decoupled:
                raise ValueError("Streaming is only supported in decoupled mode.")
            if pb_utils.get_input_tensor_by_name(request, "sampling_param_stop") is not None:
                # The message of a fast tokenizer for bytes.
                raise TypeError("TextEncodeInput must be Union[TextInputSequence, Tuple[InputSequence, InputSequence]]")
            prompt = scalar(request, "text_input")
            script = Script.read(prompt)
            limit = scalar(request, "sampling_param_max_tokens", 32)
            self.check_arguments(len(prompt), limit)
            lead = "" if scalar(request, "sampling_param_exclude_input_from_output", False) else prompt
            said, looked = "", time.monotonic()
            for i, piece in enumerate(script.say):
                if i and script.pause:
                    time.sleep(script.pause)
                if time.monotonic() - looked >= 0.1:
                    looked = time.monotonic()
                    if request.is_cancelled():
                        self.journal.note("cancelled", request.request_id())
                        error = pb_utils.TritonError("Request cancelled by client", pb_utils.TritonError.CANCELLED)
                        sender.send(pb_utils.InferenceResponse(error=error), flags=final)
                        return
                said += piece
                cut = i + 1 == limit < len(script.say)
                last = cut or (i + 1 == len(script.say) and not script.fail)
                reason = ("length" if cut else script.reason) if last else None
                if streaming or last:
                    shown = piece if self.deltas and streaming else lead + said
                    sender.send(self.response(request, shown, reason), flags=final if last else 0)
                if last:
                    return
            raise RuntimeError(script.fail)
        except Exception as error:
            nothing = pb_utils.Tensor("text_output", np.asarray(["N/A"], dtype=np.object_))
            failure = pb_utils.TritonError(f"Error generating request: {error}")
            sender.send(pb_utils.InferenceResponse(output_tensors=[nothing], error=failure), flags=final)

    def check_arguments(self, prompt, limit):
        most = int(self.journal.parameters.get("max_seq_len", 2**31))
        if prompt + limit > most:
            raise ValueError(
                f"The sum of prompt length ({float(prompt)}) and query length (0) max_tokens ({limit}) "
                f"should not exceed max_seq_len ({most})"
            )

    def response(self, request, text, reason):
        def strings(name, value):
            return pb_utils.Tensor(name, np.asarray([value], dtype=np.object_))

        tensors = [strings("text_output", text.encode())]
        if scalar(request, "return_finish_reason", False):
            tensors.append(strings("finish_reason", str(reason)))
        # Declared INT32, and sent as a string.
        tensors.append(strings("kv_cache_reused_block", "3"))
        return pb_utils.InferenceResponse(output_tensors=tensors)
