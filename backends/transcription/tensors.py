"""Conversion between Triton's tensors and the requests and responses of this backend."""

from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from backends.serving.triton import Inputs, TritonResponseSender
from backends.transcription.request import Request
from backends.transcription.responses import TranscriptionResponse

NUM_AUDIO_TOKENS = "num_audio_tokens"


def complete_config(config: Any) -> None:
    """Declare the output that the config.pbtxt of an older build lacks.

    Triton calls this unless it runs with `--disable-auto-complete-config`.
    """
    config.add_output({"name": NUM_AUDIO_TOKENS, "data_type": "TYPE_UINT32", "dims": [1]})


def read_request(inputs: Inputs) -> Request:
    """Read the inputs of one request. Raises `InvalidValue`, or `UnsupportedOption` for an unknown parameter."""
    request = Request(
        audio=inputs.array("audio"),
        language=inputs.decoded_text("language"),
        task=inputs.decoded_text("task"),
        prompt=inputs.decoded_text("prompt"),
        temperature=inputs.number("temperature"),
        timestamps=inputs.decoded_text("timestamps"),
        more=bool(inputs.flag("more")),
        vad=inputs.text("vad"),
        return_logprobs=bool(inputs.flag("return_logprobs")),
    )
    inputs.reject_remaining_parameters()
    return request


class TranscriptionResponseSender(TritonResponseSender):
    """Sends the responses of one request: segments, the end of the recording, or an error."""

    def send(self, response: TranscriptionResponse, *, final: bool) -> None:
        """Send a segment, the counts since the last response, and in the last response how much was consumed."""
        outputs: dict[str, Any] = {
            "language": _string(response.language),
            "num_input_tokens": np.array([response.num_input_tokens], np.uint32),
            NUM_AUDIO_TOKENS: np.array([response.num_audio_tokens], np.uint32),
            "num_output_tokens": np.array([response.num_output_tokens], np.uint32),
        }
        if segment := response.segment:
            outputs |= {
                "text": _string(segment.text),
                "start": _float(segment.start),
                "end": _float(segment.end),
                "token_ids": np.array(segment.token_ids, np.int32),
                "avg_logprob": _float(segment.avg_logprob),
                "no_speech_prob": _float(segment.no_speech_prob),
                "compression_ratio": _float(segment.compression_ratio),
                "temperature": _float(segment.temperature),
            }
            if segment.words is not None:
                outputs["words"] = _string(segment.words)
            if segment.logprobs is not None:
                outputs["logprobs"] = _string(segment.logprobs)
        if response.consumed is not None:
            outputs["consumed"] = _float(response.consumed)
        tensors = [pb_utils.Tensor(name, value) for name, value in outputs.items()]
        self.respond(pb_utils.InferenceResponse(tensors), final=final)


def _string(text: str) -> Any:
    return np.array([text.encode("utf-8")], np.object_)


def _float(value: float) -> Any:
    return np.array([value], np.float32)
