"""Export a Whisper and compare it with its source; runs in a process of its own, see `builders.subprocess_step`."""

import json
import logging
from pathlib import Path
from typing import Any

from builders.checkpoint import FROM_PRETRAINED_OPTIONS, Checkpoint
from builders.transcription import onnx_export, verify, whisper_model

VERIFYING = "Verifying"
"""The line that this process prints when the export has ended."""


def export(folder: str, output: str, precision: str) -> dict[str, Any]:
    """Export the checkpoint in `folder` into `output`, which holds `tokenizer.json`; return the figures of `verify`."""
    import numpy as np
    from transformers import WhisperFeatureExtractor
    from transformers.utils import logging as transformers_logging

    logging.disable(logging.WARNING)  # the exporter misses torchvision, which it does not need
    transformers_logging.disable_progress_bar()
    model = whisper_model.read(Checkpoint(Path(folder)))
    engine = Path(output)
    whisper = _load(folder, "float16" if precision == "fp16" else "float32")
    onnx_export.export(whisper, model, engine, precision)
    filters = WhisperFeatureExtractor(feature_size=model.num_mels).mel_filters.T
    np.save(engine / "mel_filters.npy", np.ascontiguousarray(filters, np.float32))
    text = json.dumps(model.to_json(precision), indent=2, ensure_ascii=False)
    (engine / "model.json").write_text(text + "\n", encoding="utf-8")
    print(VERIFYING, flush=True)  # noqa: T201 - the build reads it
    if precision == "fp16":
        whisper = _load(folder, "float32")
    return verify.compare(whisper, model, engine)


def _load(folder: str, dtype: str) -> Any:
    """Load the model, with the attention that can return its weights."""
    import torch
    from transformers import WhisperForConditionalGeneration

    return WhisperForConditionalGeneration.from_pretrained(
        folder, dtype=getattr(torch, dtype), attn_implementation="eager", **FROM_PRETRAINED_OPTIONS
    ).eval()
