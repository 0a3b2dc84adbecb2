"""The vLLM backend with a script for vLLM. Its ways are those of the backend's `src/utils/request.py` and
`src/utils/vllm_backend_utils.py`: what was added with every response, counts without a dimension or one for each
answer, `str(None)` while there is no reason, no prompt in streams, and no name of the refused parameter.

`release` is the backend's: up to 25.10 structures are called otherwise. `max_model_len` is vLLM's, in characters.
"""

import json
import threading
import time

import numpy as np
import triton_python_backend_utils as pb_utils
from script import Journal, Script, scalar

NUMBERS = frozenset(
    [
        *("n", "presence_penalty", "frequency_penalty", "repetition_penalty", "temperature", "top_p", "top_k", "min_p"),
        *("seed", "max_tokens", "min_tokens", "logprobs", "prompt_logprobs"),
    ]
)
OTHERS = frozenset(["stop", "stop_token_ids", "ignore_eos", "skip_special_tokens", "logit_bias"])
STRUCTURES = frozenset(["json", "regex", "choice", "grammar", "json_object"])


class TritonPythonModel:
    def initialize(self, args):
        self.journal = Journal(args)
        options = self.journal.parameters
        self.structures = "structured_outputs" if float(options.get("release", "25.12")) > 25.10 else "guided_decoding"
        self.max_model_len = int(options.get("max_model_len", "1000000"))

    def execute(self, requests):
        for request in requests:
            self.journal.note_inputs(request)
            threading.Thread(target=self.answer, args=(request, request.get_response_sender()), daemon=True).start()
        return None

    def read_parameters(self, text):
        """Return None for parameters that vLLM refuses. The reason is in its log only."""
        try:
            parameters = json.loads(text)
            unknown = parameters.keys() - NUMBERS - OTHERS - {self.structures}
            if unknown:
                raise TypeError(f"Unexpected keyword argument '{unknown.pop()}'")
            for name in NUMBERS & parameters.keys():
                float(parameters[name])  # not of null
            if self.structures in parameters:
                ((kind, value),) = json.loads(parameters[self.structures]).items()
                if kind not in STRUCTURES or (kind == "json" and not isinstance(value, str | dict)):
                    raise ValueError(f"no structure: {kind}")
            n, most = parameters.get("n", 1), parameters.get("max_tokens", 16)
            if most < 1 or not 0 < parameters.get("top_p", 1) <= 1 or not 0 <= parameters.get("temperature", 1) <= 2:
                raise ValueError("out of range")
            if parameters.get("min_tokens", 0) > most:
                raise ValueError("min_tokens must be less than or equal to max_tokens")
            if n > 1 and parameters.get("temperature", 1) == 0:
                raise ValueError(f"n must be 1 when using greedy sampling, got {n}.")
            return parameters
        except Exception:
            return None

    def answer(self, request, sender):
        final = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
        try:
            prompt = scalar(request, "text_input")
            if scalar(request, "stream", False) and not scalar(request, "exclude_input_in_output", True):
                raise ValueError("When streaming, `exclude_input_in_output` = False is not allowed.")
            parameters = self.read_parameters(scalar(request, "sampling_parameters", "{}"))
            if parameters is None:
                raise AttributeError("'NoneType' object has no attribute 'lora_name'")
            if any(token < 0 for token in parameters.get("logit_bias") or ()):
                raise ValueError("token_id(s) in logit_bias contain out-of-vocab token ids.")
            if not prompt:
                raise ValueError("The decoder prompt cannot be empty")
            if len(prompt) > self.max_model_len:
                reason = f"(length {len(prompt)}) is longer than the maximum model length of {self.max_model_len}."
                raise ValueError(f"The decoder prompt {reason}")
            script = Script.read(prompt)
            backend = Backend(request, parameters, prompt)
            outputs = [Output(script, parameters, self.max_model_len - len(prompt), i) for i in range(backend.n)]
            step = 0
            while any(output.reason is None for output in outputs):
                if step and script.pause:
                    time.sleep(script.pause)
                if sender.is_cancelled():
                    self.journal.note("cancelled", request.request_id())
                    error = pb_utils.TritonError(message="Request was cancelled", code=pb_utils.TritonError.CANCELLED)
                    sender.send(pb_utils.InferenceResponse(error=error), flags=final)
                    return
                # All sequences advance in the first step, and one in each later step.
                growing = [output for output in outputs if output.reason is None]
                moved = growing if not step or len(growing) == 1 else [growing[step % len(growing)]]
                for output in moved:
                    if not output.grow():
                        raise RuntimeError(script.fail)
                step += 1
                ended = all(output.reason for output in outputs)
                sender.send(backend.response(moved), flags=final if ended else 0)
        except Exception as error:
            nothing = pb_utils.Tensor("text_output", np.asarray(["N/A"], dtype=np.object_))
            failure = pb_utils.TritonError(f"Error generating stream: {error}")
            sender.send(pb_utils.InferenceResponse(output_tensors=[nothing], error=failure), flags=final)


class Output:
    """The whole text of one choice so far, as vLLM has it. `<seed>` in a script is the seed of the choice."""

    def __init__(self, script, parameters, room, index):
        seed = parameters.get("seed")
        self.fails = script.fail
        self.pieces = [piece.replace("<seed>", str(None if seed is None else seed + index)) for piece in script.say]
        self.limit = min(int(parameters.get("max_tokens", 16)), max(room, 1))
        self.natural = script.reason
        self.stop = parameters.get("stop") or []
        self.generated = ""
        self.tokens = 0
        self.reason = None

    @property
    def text(self):
        """The text without a possible beginning of a stop string, which vLLM holds back until the end."""
        held = 0 if self.reason else max((len(stop) for stop in self.stop), default=1) - 1
        return self.generated[: len(self.generated) - held]

    def grow(self):
        """Add a piece. Returns whether there was one."""
        if self.tokens == len(self.pieces):
            return False
        self.generated += self.pieces[self.tokens]
        self.tokens += 1
        ends = [at for stop in self.stop if (at := self.generated.find(stop)) >= 0]
        if ends:
            self.generated, self.reason = self.generated[: min(ends)], "stop"
        elif self.tokens == len(self.pieces) and not self.fails:
            self.reason = self.natural
        elif self.tokens == self.limit:
            self.reason = "length"
        return True


class Backend:
    """The state of the backend between responses: lengths by position in the response."""

    def __init__(self, request, parameters, prompt):
        self.n = int(parameters.get("n", 1))
        self.prompt = prompt
        self.returns_logprobs = scalar(request, "return_logprobs", False)
        self.logprobs_requested = parameters.get("logprobs") is not None
        self.lengths = self.counts = self.logprob_counts = None

    def response(self, outputs):
        lengths = self.lengths or [0] * len(outputs)
        texts = [output.text[before:].encode() for output, before in zip(outputs, lengths, strict=False)]
        self.lengths = [len(output.text) for output in outputs]
        counts = self.counts or [0] * len(outputs)
        tokens = [output.tokens - before for output, before in zip(outputs, counts, strict=False)]
        self.counts = [output.tokens for output in outputs]
        tensors = [
            pb_utils.Tensor("text_output", np.asarray(texts, np.object_)),
            pb_utils.Tensor("finish_reason", np.asarray([str(o.reason) for o in outputs], np.object_)),
            pb_utils.Tensor("num_input_tokens", np.asarray(len(self.prompt.encode()), np.uint32)),
            pb_utils.Tensor("num_output_tokens", np.asarray([max(count, 0) for count in tokens], np.uint32)),
        ]
        if self.returns_logprobs:
            self.logprob_counts = self.logprob_counts or [0] * len(outputs)
            written = []
            for i, output in enumerate(outputs):
                before, self.logprob_counts[i] = self.logprob_counts[i], output.tokens
                new = output.pieces[before : output.tokens]
                entries = [{"7": {"logprob": -0.5, "rank": 1, "decoded_token": piece}} for piece in new]
                written.append((json.dumps(entries) if self.logprobs_requested else "null").encode())
            tensors.append(pb_utils.Tensor("logprobs", np.asarray(written, np.object_)))
        return pb_utils.InferenceResponse(output_tensors=tensors)
