"""Build a text-generation model: fetch, export, verify."""

import json
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from builders import config_pbtxt
from builders.checkpoint import Checkpoint, read_json
from builders.errors import NotEnoughSpace, RecipeError, SourceUnavailable
from builders.family import Builder
from builders.llm import export_step
from builders.llm.verify import TOLERANCES, verify
from builders.progress import Progress
from builders.recipe import Recipe
from builders.sources import Source
from builders.vision import idefics3
from builders.vision.split import split_checkpoint
from builders.vision.verify import verify as verify_images

COPIED_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "config.json",
)
"""Files copied from the checkpoint unchanged; the exporter writes its own variants of some."""

BYTES_PER_PARAMETER = {"fp32": 4.1, "fp16": 2.1, "int8": 2.1, "int4": 0.9}
"""Size of the engine. int8 keeps the embedding in fp32."""


class LLMBuilder(Builder):
    """Builds text-generation models, with or without vision."""

    def check(self, recipe: Recipe, source: Source) -> int:
        """Return the bytes of disk that a build needs. Raises UnsupportedModel, NotEnoughSpace, MissingDependency."""
        config = source.config()
        export_step.check(recipe, _text_config(config))
        parameters = source.num_parameters() or 0
        _check_memory(parameters)
        # A vision-language model is also split in fp32: the text model for the exporter, the rest for the engine.
        parts = 4 * parameters if idefics3.is_idefics3(config) else 0
        return source.scratch_bytes() + parts + int(parameters * BYTES_PER_PARAMETER[recipe.precision]) + 64_000_000

    def build(self, recipe: Recipe, source: Source, folder: Path, scratch: Path, progress: Progress) -> dict[str, Any]:
        """Build the engine and `config.pbtxt` into `folder`; return the figures of the verification."""
        progress.begin("fetch", recipe.source)
        checkpoint = source.fetch(scratch, progress)
        checkpoint.check_tokenizer()
        export_step.check(recipe, _text_config(checkpoint.config()))
        supports_images = idefics3.is_idefics3(checkpoint.config())
        context_length = _context_length(recipe, checkpoint)

        progress.begin("export", f"{recipe.precision} for {recipe.target}")
        engine = folder / "1"
        text_checkpoint = split_checkpoint(checkpoint, engine, scratch, progress) if supports_images else checkpoint
        export_step.export(text_checkpoint.folder, recipe, engine, scratch, progress, vectors=supports_images)
        _write_tokenizer_files(checkpoint, engine)

        progress.begin("verify", "against the source model")
        tolerance = recipe.tolerance or TOLERANCES[recipe.precision]
        figures = asdict(verify(text_checkpoint, engine, tolerance, progress))
        if supports_images:
            figures["pictures"] = asdict(verify_images(checkpoint, engine, tolerance, progress))
        if checkpoint.chat_template() is None:
            progress.note(f"{recipe.source} has no chat template: the model serves completions only, not chats.")
        (folder / "config.pbtxt").write_text(_config(recipe, checkpoint, context_length), encoding="utf-8", newline="")
        return figures


def _text_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return the config that the exporter reads: for a vision-language checkpoint, that of its text model."""
    return idefics3.text_config(config) if idefics3.is_idefics3(config) else config


def _check_memory(parameters: int) -> None:
    """Raise NotEnoughSpace if the weights in fp32, which export and verification load, exceed the memory."""
    needed, total = 4 * parameters, psutil.virtual_memory().total
    if needed > total:
        raise NotEnoughSpace(
            f"The model has {parameters / 1e9:.1f} billion parameters, so building it needs {needed / 1e9:.0f} GB of "
            f"memory, and this machine has {total / 1e9:.0f} GB. Build it on a larger one and copy the model's folder."
        )


def _context_length(recipe: Recipe, checkpoint: Checkpoint) -> int:
    trained = checkpoint.context_length()
    if recipe.context_length is not None and recipe.context_length > trained:
        raise RecipeError(f"context_length {recipe.context_length} is more than the model was trained for: {trained}.")
    return recipe.context_length or trained


def _write_tokenizer_files(checkpoint: Checkpoint, engine: Path) -> None:
    """Copy the checkpoint's tokenizer to the engine, and write the ids of all tokens that end an answer."""
    for name in COPIED_FILES:
        if (checkpoint.folder / name).is_file():
            shutil.copyfile(checkpoint.folder / name, engine / name)
    if not (engine / "tokenizer.json").is_file():
        raise SourceUnavailable("The checkpoint has no tokenizer.json, and its other files are not enough to make one.")
    ends = checkpoint.end_token_ids()
    if not ends:
        raise SourceUnavailable("The checkpoint names no end-of-sequence token: its answers would never end.")
    generation = read_json(checkpoint.folder / "generation_config.json") | {"eos_token_id": ends}
    (engine / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n", encoding="utf-8")


def _config(recipe: Recipe, checkpoint: Checkpoint, context_length: int) -> str:
    template = checkpoint.chat_template()
    supports_images = idefics3.is_idefics3(checkpoint.config())
    owner = recipe.source.split("/")[0] if recipe.source.count("/") == 1 and recipe.source[0] not in "./~" else "local"
    return config_pbtxt.render(
        recipe.name,
        "llm",
        config_pbtxt.TEXT_GENERATION_INPUTS,
        config_pbtxt.TEXT_GENERATION_OUTPUTS,
        {
            "served_name": recipe.served_name or recipe.name,
            "operations": ["chat", "complete"] if template is not None else ["complete"],
            "signature": "vllm",
            "modalities": ["text", "image"] if supports_images else ["text"],
            "context_length": context_length,
            "chat_template": template,
            "special_tokens": checkpoint.special_tokens(),
            "control_tokens": checkpoint.control_tokens(),
            "special_tokens_in_content": recipe.special_tokens_in_content,
            "owned_by": recipe.owned_by or owner,
            "created": int(time.time()),
            "tool_call_parser": recipe.tool_call_parser,
            "reasoning_parser": recipe.reasoning_parser,
            "engine": "onnxruntime",
            "precision": recipe.precision,
            "sampling_defaults": checkpoint.sampling_defaults() | recipe.sampling.model_dump(exclude_none=True),
            "max_rows": recipe.max_rows,
            "max_waiting": recipe.max_waiting,
            "threads": recipe.threads,
        },
        decoupled=True,
    )
