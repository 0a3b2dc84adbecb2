"""Build an embedding model from a sentence-transformers folder: fetch, export, verify."""

import importlib.util
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from builders import config_pbtxt
from builders.embedding import export_step, sentence_model
from builders.embedding.sentence_model import SentenceModel
from builders.embedding.verify import verify
from builders.errors import MissingDependency, NotEnoughSpace, RecipeError, SourceUnavailable, UnsupportedModel
from builders.family import Builder
from builders.progress import Progress
from builders.recipe import Recipe
from builders.sources import Source

COPIED_FILES = ("tokenizer.json", "tokenizer_config.json", "config.json")
"""Files copied from the checkpoint unchanged."""

PRECISIONS = ("fp32", "int8")

UNSUPPORTED_OPTIONS = ("tolerance", "tool_call_parser", "reasoning_parser", "quantization")
"""Recipe fields for text-generation models that have no meaning here."""


class EmbeddingBuilder(Builder):
    """Builds embedding models."""

    def check(self, recipe: Recipe, source: Source) -> int:
        """Return the bytes of disk that a build needs.

        Raises UnsupportedModel, RecipeError, NotEnoughSpace, MissingDependency.
        """
        if recipe.target != "onnx":
            raise UnsupportedModel(f"The target {recipe.target!r} is not built yet; the target that is: onnx.")
        if recipe.precision not in PRECISIONS:
            raise UnsupportedModel(f"Embedding models are built in {' and '.join(PRECISIONS)}, not {recipe.precision}.")
        for name in UNSUPPORTED_OPTIONS:
            if getattr(recipe, name) is not None:
                raise RecipeError(f"{name} is not an option of embedding models.")
        for package in ("torch", "transformers", "onnxscript", "onnxruntime"):
            if importlib.util.find_spec(package) is None:
                raise MissingDependency(package)
        config = source.config()
        if config.get("auto_map") and "model_type" not in config:
            raise UnsupportedModel("This model requires its own Python code, which is never run.")
        needed = 4 * (source.num_parameters() or 0)
        if 2 * needed > psutil.virtual_memory().total:
            raise NotEnoughSpace(
                f"Building this model needs {2 * needed / 1e9:.0f} GB of memory, and this machine has "
                f"{psutil.virtual_memory().total / 1e9:.0f} GB. Build it on a larger one and copy the model's folder."
            )
        return source.scratch_bytes() + needed + 64_000_000

    def build(self, recipe: Recipe, source: Source, folder: Path, scratch: Path, progress: Progress) -> dict[str, Any]:
        """Build the engine and `config.pbtxt` into `folder`; return the figures of the verification."""
        progress.begin("fetch", recipe.source)
        checkpoint = source.fetch(scratch, progress)
        model = sentence_model.read(checkpoint)
        if not (model.transformer.folder / "tokenizer.json").is_file():
            raise SourceUnavailable(
                f"{model.transformer.folder} has no tokenizer.json, which the backend reads. Copy it from the source "
                "of the weights."
            )
        context_length = _context_length(recipe, model)
        if (recipe.truncate_prompt_tokens or 0) > context_length:
            raise RecipeError(f"truncate_prompt_tokens is more than the model takes: {context_length}.")

        progress.begin("export", f"{recipe.precision} for {recipe.target}")
        engine = folder / "1"
        export_step.export(checkpoint.folder, recipe, engine)
        for name in COPIED_FILES:
            if (model.transformer.folder / name).is_file():
                shutil.copyfile(model.transformer.folder / name, engine / name)

        progress.begin("verify", "against the source model")
        figures = verify(model, engine, context_length, recipe.precision, progress)
        config = _config(recipe, model, context_length, _dimensions(engine))
        (folder / "config.pbtxt").write_text(config, encoding="utf-8", newline="")
        return asdict(figures)


def _context_length(recipe: Recipe, model: SentenceModel) -> int:
    limit = model.max_positions
    if recipe.context_length is not None and recipe.context_length > limit:
        raise RecipeError(f"context_length {recipe.context_length} is more than the model takes: {limit}.")
    return recipe.context_length or model.max_length


def _dimensions(engine: Path) -> int:
    import onnx

    (output,) = onnx.load(str(engine / "model.onnx"), load_external_data=False).graph.output
    return int(output.type.tensor_type.shape.dim[1].dim_value)


def _config(recipe: Recipe, model: SentenceModel, context_length: int, dimensions: int) -> str:
    owner = recipe.source.split("/")[0] if recipe.source.count("/") == 1 and recipe.source[0] not in "./~" else "local"
    if isinstance(recipe.matryoshka, tuple) and max(recipe.matryoshka) > dimensions:
        raise RecipeError(f"matryoshka names widths above the model's own, which is {dimensions}.")
    return config_pbtxt.render(
        recipe.name,
        "embedding",
        config_pbtxt.EMBEDDING_INPUTS,
        config_pbtxt.EMBEDDING_OUTPUTS,
        {
            "served_name": recipe.served_name or recipe.name,
            "operations": ["embed"],
            "signature": "embedding",
            "context_length": context_length,
            "dimensions": dimensions,
            "matryoshka": recipe.matryoshka or None,
            "normalized": model.normalized,
            "prompts": model.prompts or None,
            "default_prompt": model.default_prompt,
            "lowercase": model.lowercase,
            "truncate_prompt_tokens": recipe.truncate_prompt_tokens,
            "owned_by": recipe.owned_by or owner,
            "created": int(time.time()),
            "engine": "onnxruntime",
            "precision": recipe.precision,
            "max_waiting": max(recipe.max_waiting, 8192),
            "threads": recipe.threads,
        },
        decoupled=True,
    )
