"""The `config.pbtxt` of a transcription model."""

import time
from typing import Any

from builders import config_pbtxt
from builders.config_pbtxt import BOOL, BYTES, FP32, INT32, UINT32, TensorConfig
from builders.transcription.family import TranscriptionRecipe
from builders.transcription.whisper_model import SAMPLE_RATE, WhisperModel

INPUTS = (
    TensorConfig("audio", FP32, (-1,)),
    TensorConfig("language", BYTES, (1,), optional=True),
    TensorConfig("task", BYTES, (1,), optional=True),
    TensorConfig("prompt", BYTES, (1,), optional=True),
    TensorConfig("temperature", FP32, (1,), optional=True),
    TensorConfig("timestamps", BYTES, (1,), optional=True),
    TensorConfig("more", BOOL, (1,), optional=True),
    TensorConfig("vad", BYTES, (1,), optional=True),
    TensorConfig("return_logprobs", BOOL, (1,), optional=True),
)
OUTPUTS = (
    TensorConfig("text", BYTES, (1,)),
    TensorConfig("start", FP32, (1,)),
    TensorConfig("end", FP32, (1,)),
    TensorConfig("language", BYTES, (1,)),
    TensorConfig("words", BYTES, (1,)),
    TensorConfig("token_ids", INT32, (-1,)),
    TensorConfig("avg_logprob", FP32, (1,)),
    TensorConfig("no_speech_prob", FP32, (1,)),
    TensorConfig("compression_ratio", FP32, (1,)),
    TensorConfig("temperature", FP32, (1,)),
    TensorConfig("logprobs", BYTES, (1,)),
    TensorConfig("num_input_tokens", UINT32, (1,)),
    TensorConfig("num_audio_tokens", UINT32, (1,)),
    TensorConfig("num_output_tokens", UINT32, (1,)),
    TensorConfig("consumed", FP32, (1,)),
)
"""The signature `transcription` of docs/architecture.md."""


def render(recipe: TranscriptionRecipe, model: WhisperModel) -> str:
    """Return `config.pbtxt`."""
    default_tasks = ("transcribe", "translate") if model.multilingual else ("transcribe",)
    source = recipe.source
    owner = source.split("/")[0] if source.count("/") == 1 and source[0] not in "./~" else "local"
    parameters: dict[str, Any] = {
        "served_name": recipe.served_name or recipe.name,
        "operations": ["transcribe"],
        "signature": "transcription",
        "languages": list(model.languages),
        "tasks": list(recipe.tasks or default_tasks),
        "multilingual": model.multilingual,
        "sample_rate": SAMPLE_RATE,
        "max_seconds": recipe.max_seconds,
        "owned_by": recipe.owned_by or owner,
        "created": int(time.time()),
        "engine": "onnxruntime",
        "precision": recipe.precision,
        "max_rows": recipe.max_rows,
        "max_waiting": recipe.max_waiting,
        "threads": recipe.threads,
    }
    kind = "KIND_GPU" if recipe.device == "cuda" else "KIND_CPU"
    return config_pbtxt.render(
        recipe.name, "transcription", INPUTS, OUTPUTS, parameters, decoupled=True, instance_kind=kind
    )
