"""The step `tensorrt_llm` with bytes for tokens and a script for the engine. Its ways are those of `1/model.py`:
`streaming` only where it is decoupled, the prompt before the answer unless it is excluded, stop words by tokens and
part of the answer, counts of each response, `sequence_index` for several answers, a look for hang-ups every 100 ms.
"""

import json
import threading
import time

import numpy as np
import triton_python_backend_utils as pb_utils
from script import Journal, Script, scalar


def stop_words(request):
    tensor = pb_utils.get_input_tensor_by_name(request, "stop_words_list")
    if tensor is None:
        return []
    flat, ends = tensor.as_numpy()[0].tolist()
    starts = [0, *ends]
    return [flat[start:end] for start, end in zip(starts, ends, strict=False) if end > 0]


class TritonPythonModel:
    def initialize(self, args):
        self.journal = Journal(args)
        self.stopped = set()
        self.decoupled = pb_utils.using_decoupled_model_transaction_policy(json.loads(args["model_config"]))

    def execute(self, requests):
        for request in requests:
            self.journal.note_inputs(request)
            threading.Thread(target=self.answer, args=(request, request.get_response_sender()), daemon=True).start()
        return None

    def answer(self, request, sender):
        final = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
        try:
            if scalar(request, "stop", False):
                self.stopped.add(request.request_id())
                sender.send(flags=final)
                return
            ids = pb_utils.get_input_tensor_by_name(request, "input_ids").as_numpy()[0].tolist()
            script = Script.read(bytes(ids).decode())
            streaming = scalar(request, "streaming", False)
            if streaming and not self.decoupled:
                raise pb_utils.TritonModelException("Streaming is only supported in decoupled mode.")
            limit = scalar(request, "request_output_len")
            n = scalar(request, "num_return_sequences", 1)
            stops = [] if script.deaf else stop_words(request)
            generated: list[int] = []
            last_check = time.monotonic()
            pieces = [list(piece.encode()) for piece in script.say]
            if script.bytes:
                pieces = [[byte] for piece in pieces for byte in piece]
            for i, piece in enumerate(pieces):
                if i and script.pause:
                    time.sleep(script.pause)
                if time.monotonic() - last_check >= 0.1:
                    last_check = time.monotonic()
                    if request.is_cancelled() or request.request_id() in self.stopped:
                        self.journal.note("cancelled", request.request_id())
                        error = pb_utils.TritonError("cancelled", pb_utils.TritonError.CANCELLED)
                        sender.send(pb_utils.InferenceResponse(error=error), flags=final)
                        return
                piece = piece[: limit - len(generated)]
                for at in range(1, len(piece) + 1):
                    if any((generated + piece[:at])[-len(stop) :] == stop for stop in stops):
                        piece = piece[:at]
                        stops, limit = [], 0
                        break
                generated += piece
                last = len(generated) >= limit or (i + 1 == len(pieces) and not script.fail)
                if streaming or last:
                    tokens = piece if streaming else generated
                    if not streaming and not scalar(request, "exclude_input_in_output", False):
                        tokens = ids + generated
                    for sequence in range(n):
                        flags = final if last and sequence + 1 == n else 0
                        sender.send(self.response(request, tokens, len(ids), sequence if n > 1 else None), flags=flags)
                if last:
                    return
            raise RuntimeError(script.fail)
        except Exception as error:
            sender.send(pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error))), flags=final)

    def response(self, request, tokens, prompt_tokens, sequence):
        tensors = {
            "output_ids": np.array([[tokens]], np.int32),
            "sequence_length": np.array([[len(tokens)]], np.int32),
        }
        if sequence is not None:
            tensors["sequence_index"] = np.array([[sequence]], np.int32)
        if scalar(request, "return_num_input_tokens", False):
            tensors["num_input_tokens"] = np.array([[prompt_tokens]], np.int32)
        if scalar(request, "return_num_output_tokens", False):
            tensors["num_output_tokens"] = np.array([[len(tokens)]], np.int32)
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, value) for name, value in tensors.items()])
