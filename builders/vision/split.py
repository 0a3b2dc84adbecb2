"""Split a vision-language checkpoint: its text model becomes a checkpoint, its image encoder an ONNX file."""

import json
import shutil
from pathlib import Path
from typing import Any

from builders import subprocess_step
from builders.checkpoint import Checkpoint
from builders.progress import Progress
from builders.vision import idefics3

TEXT_MODEL_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json")
"""Files that the exporter reads besides the weights."""


def split_checkpoint(checkpoint: Checkpoint, engine: Path, scratch: Path, progress: Progress) -> Checkpoint:
    """Write `vision.onnx`, `embedding.npy` and `vision.json` into `engine`; return the text model, below `scratch`.

    Raises SourceUnavailable, UnsupportedModel, ExportFailed.
    """
    vision = idefics3.vision_config(checkpoint)
    text = scratch / "text"
    for folder in (engine, text):
        folder.mkdir(parents=True, exist_ok=True)
    request: dict[str, Any] = {
        "input": str(checkpoint.folder),
        "text": str(text),
        "engine": str(engine),
        "tile": vision["tile"],
        "tokens": vision["tokens_per_tile"],
    }
    subprocess_step.run(
        "builders.vision.split_process:split",
        request,
        "Splitting the checkpoint",
        lambda line: progress.update(line.lower()),
    )
    (engine / "vision.json").write_text(json.dumps(vision, indent=2) + "\n", encoding="utf-8")
    for name in TEXT_MODEL_FILES:
        if (checkpoint.folder / name).is_file():
            shutil.copyfile(checkpoint.folder / name, text / name)
    return Checkpoint(text)
