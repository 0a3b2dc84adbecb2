"""Writing of trained pipelines."""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def save_pipeline_as(
    pipeline: Any, folder: Path, dtype: Any, parts: Sequence[str], make_pipeline: Callable[..., Any]
) -> None:
    """Write a pipeline as a diffusers folder of safetensors; the pipeline keeps its own precision.

    `parts` are the names of its networks, which are written in `dtype`. `make_pipeline` joins them with the tokenizer.
    """
    networks = {name: copy.deepcopy(getattr(pipeline, name)).to(dtype) for name in parts}
    make_pipeline(tokenizer=pipeline.tokenizer, **networks).save_pretrained(folder)
    for file in folder.rglob("*.safetensors"):  # they are written readable only by their owner
        file.chmod(0o644)
