"""The step `preprocessing` with bytes for tokens. Word lists are flat ids over their ends, as
`_to_word_list_format` of the published one writes them.
"""

import numpy as np
import triton_python_backend_utils as pb_utils


def words(request, name):
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    given = [] if tensor is None else [word for word in tensor.as_numpy()[0] if word]
    flat = [byte for word in given for byte in word] or [0]
    ends = list(np.cumsum([len(word) for word in given]))
    return np.array([[flat, ends + [-1] * (len(flat) - len(ends))]], np.int32)


class TritonPythonModel:
    def execute(self, requests):
        return [self.prepare(request) for request in requests]

    def prepare(self, request):
        query = pb_utils.get_input_tensor_by_name(request, "QUERY").as_numpy()
        assert query.shape == (1, 1), query.shape
        ids = np.frombuffer(query[0][0], np.uint8).astype(np.int32)[None]
        length = pb_utils.get_input_tensor_by_name(request, "REQUEST_OUTPUT_LEN").as_numpy()
        outputs = {
            "INPUT_ID": ids,
            "REQUEST_INPUT_LEN": np.array([[ids.shape[1]]], np.int32),
            "DECODER_INPUT_ID": np.zeros((1, 1), np.int32),
            "REQUEST_DECODER_INPUT_LEN": np.ones((1, 1), np.int32),
            "BAD_WORDS_IDS": words(request, "BAD_WORDS_DICT"),
            "STOP_WORDS_IDS": words(request, "STOP_WORDS_DICT"),
            "EMBEDDING_BIAS": np.zeros((1, 0), np.float32),
            "REQUEST_OUTPUT_LEN": length,
            "OUT_END_ID": np.array([[256]], np.int32),
            "OUT_PAD_ID": np.array([[256]], np.int32),
            "OUT_PROMPT_TABLE_EXTRA_IDS": np.zeros((1, 1), np.uint64),
        }
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, value) for name, value in outputs.items()])
