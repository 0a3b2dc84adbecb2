"""The step `postprocessing` with bytes for tokens: each response is made text by itself.

Its tokenizer is one of Metaspace, for texts that have that character: it stands for the space before a word, which is
left out where a text begins.
"""

import numpy as np
import triton_python_backend_utils as pb_utils


def decode(tokens):
    return tokens.decode(errors="replace").removeprefix("\u2581").replace("\u2581", " ")


class TritonPythonModel:
    def execute(self, requests):
        return [self.detokenize(request) for request in requests]

    def detokenize(self, request):
        tokens = pb_utils.get_input_tensor_by_name(request, "TOKENS_BATCH").as_numpy()
        lengths = pb_utils.get_input_tensor_by_name(request, "SEQUENCE_LENGTH").as_numpy()
        texts = [
            decode(bytes(int(token) for token in beam[: lengths[i][j]])).encode()
            for i, beams in enumerate(tokens)
            for j, beam in enumerate(beams)
        ]
        return pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT", np.array(texts, np.object_))])
