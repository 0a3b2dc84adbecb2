"""tensorrt_llm_bls: asks the three steps itself. Its ways are those of `1/model.py`, `lib/decode.py` and
`lib/triton_decoder.py`: ids of its own for the steps, the whole text so far where it accumulates tokens, answers to
one request at a time, a Python traceback for a failure, and no look at whether somebody still listens.

Triton 2.51 hands it the failure of a step as the first response, and never one that comes after another: then it waits
for ever, and with it its instance.
"""

import json
import traceback
import uuid

import numpy as np
import triton_python_backend_utils as pb_utils
from script import Journal

_UNCHANGED = (
    *("temperature", "repetition_penalty", "min_tokens", "presence_penalty", "frequency_penalty", "seed"),
    *("exclude_input_in_output", "return_num_input_tokens", "return_num_output_tokens"),
    *(
        "guided_decoding_guide_type",
        "guided_decoding_guide",
    ),
)
_TO_CORE = {
    "top_k": "runtime_top_k",
    "top_p": "runtime_top_p",
    "length_penalty": "len_penalty",
    "stream": "streaming",
    **{name: name for name in _UNCHANGED},
}
_TO_PREPROCESSING = {"text_input": "QUERY", "max_tokens": "REQUEST_OUTPUT_LEN", "stop_words": "STOP_WORDS_DICT"}
_FROM_PREPROCESSING = {
    "INPUT_ID": "input_ids",
    "REQUEST_INPUT_LEN": "input_lengths",
    "STOP_WORDS_IDS": "stop_words_list",
    "OUT_END_ID": "end_id",
}


def column(array):
    """Add the batch dimension that `reshape` of the configuration removed."""
    return array[:, None] if array.ndim == 1 else array


class TritonPythonModel:
    def initialize(self, args):
        self.journal = Journal(args)
        self.decoupled = pb_utils.using_decoupled_model_transaction_policy(json.loads(args["model_config"]))
        self.accumulates = self.journal.parameters["accumulate_tokens"] == "true"

    def execute(self, requests):
        responses = []
        for request in requests:
            self.journal.note_inputs(request)
            sender = request.get_response_sender() if self.decoupled else None
            try:
                for response in self.answer(request):
                    sender.send(response) if sender else responses.append(response)
            except Exception:
                failure = pb_utils.InferenceResponse([], error=pb_utils.TritonError(traceback.format_exc()))
                sender.send(failure) if sender else responses.append(failure)
            if sender:
                sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        return None if self.decoupled else responses

    def infer(self, model, inputs, outputs, request_id="", decoupled=False):
        tensors = [pb_utils.Tensor(name, value) for name, value in inputs.items()]
        request_to_step = pb_utils.InferenceRequest(
            model_name=model, inputs=tensors, requested_output_names=outputs, request_id=request_id
        )
        responses = request_to_step.exec(decoupled=decoupled)
        for response in responses if decoupled else [responses]:
            if response.has_error():
                raise pb_utils.TritonModelException(response.error().message())
            yield {tensor.name(): tensor.as_numpy() for tensor in response.output_tensors()}

    def answer(self, request):
        given = {tensor.name(): column(tensor.as_numpy()) for tensor in request.inputs()}
        assert given["text_input"].shape == (1, 1), given["text_input"].shape
        request_id = str(uuid.uuid4())
        (prepared,) = self.infer(
            "preprocessing",
            {theirs: given[ours] for ours, theirs in _TO_PREPROCESSING.items() if ours in given},
            list(_FROM_PREPROCESSING),
            request_id,
        )
        inputs = {theirs: prepared[ours] for ours, theirs in _FROM_PREPROCESSING.items()}
        inputs |= {theirs: given[ours] for ours, theirs in _TO_CORE.items() if ours in given}
        inputs["request_output_len"] = given["max_tokens"]
        outputs = ["output_ids", "sequence_length", "sequence_index", "num_input_tokens", "num_output_tokens"]
        so_far = np.zeros((1, 1, 0), np.int32)
        for made in self.infer("tensorrt_llm", inputs, outputs, request_id, self.decoupled):
            if "output_ids" not in made:
                continue
            tokens, lengths = made["output_ids"], made["sequence_length"]
            if self.accumulates and self.decoupled:
                tokens = so_far = np.concatenate((so_far, tokens), axis=2)
                lengths = np.array([[tokens.shape[2]]], np.int32)
            (text,) = self.infer("postprocessing", {"TOKENS_BATCH": tokens, "SEQUENCE_LENGTH": lengths}, ["OUTPUT"])
            tensors = {"text_output": text["OUTPUT"]}
            tensors |= {name: made[name] for name in outputs[2:] if name in made}
            yield pb_utils.InferenceResponse([pb_utils.Tensor(name, value) for name, value in tensors.items()])
