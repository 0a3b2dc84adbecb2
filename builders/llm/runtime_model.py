"""The targets `vllm` and `llmapi`: a checkpoint, and the arguments with which a runtime loads it.

In the layout `tritonic` the backend `llm` runs the runtime, and `config.pbtxt` describes the model. In the layout
`nvidia` NVIDIA's own backend or model does, and a piece of a models file describes it to the gateway.
"""

import json
import os
from pathlib import Path
from typing import Any

from builders.checkpoint import Checkpoint
from builders.errors import RecipeError, UnsupportedModel
from builders.llm import nvidia_layout, triton_config
from builders.llm.installed_files import TOKENIZER_FILES, check_weights, place_checkpoint, write_tokenizer_files
from builders.llm.quantization import quantize
from builders.llm.recipe import LLMRecipe
from builders.progress import Progress
from builders.sources import HubSource, LocalSource, Source

CHECKPOINT_FOLDER = "checkpoint"
"""Folder of the weights in a version folder; a path in `model.json` and `model.yaml` is relative to their folder."""

DTYPES = {"fp16": "float16", "fp32": "float32", "checkpoint": "auto"}
_DTYPE_NAMES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}


def check(recipe: LLMRecipe, source: Source) -> int:
    """Return the bytes of disk that a build needs.

    Raises UnsupportedModel, MissingDependency, NotEnoughSpace, RecipeError, SourceUnavailable.
    """
    if recipe.reference and not isinstance(source, HubSource | LocalSource):
        raise RecipeError(f"{recipe.source} is unpacked for a build only, so a model cannot refer to it.")
    if recipe.templates is not None:
        nvidia_layout.check_llmapi_templates(Path(recipe.templates))
    if recipe.checkpoint_quantization is not None:
        quantize.check(recipe, source.num_parameters() or 0)
    config = source.config()
    if config.get("auto_map") and "model_type" not in config:
        raise UnsupportedModel("This model requires its own Python code, which is never run.")
    if recipe.checkpoint_quantization is not None and "quantization_config" in config:
        method = config["quantization_config"].get("quant_method", "its own format")
        raise UnsupportedModel(f"The checkpoint is quantized already, in {method}: leave out --quantization.")
    if recipe.reference:
        return 64_000_000
    weights = 2 * (source.num_parameters() or 0)
    copies = 2 if recipe.checkpoint_quantization is not None else 1
    return source.scratch_bytes() + copies * weights + 64_000_000


def build(recipe: LLMRecipe, source: Source, folder: Path, scratch: Path, progress: Progress) -> dict[str, Any]:
    """Write the model into `folder`; return the figures of the verification. Raises BuildError."""
    progress.begin("fetch", recipe.source)
    if recipe.reference and isinstance(source, HubSource):
        checkpoint = source.fetch_configuration(progress)
    else:
        checkpoint = source.fetch(scratch, progress)
    checkpoint.check_tokenizer()
    triton_config.context_length(recipe, checkpoint)
    version = folder / "1"
    version.mkdir(parents=True)

    progress.begin("export", f"{recipe.checkpoint_quantization or recipe.precision} for {recipe.target}")
    served, figures = checkpoint, dict[str, Any]()
    if recipe.checkpoint_quantization is not None:
        quantized, figures["packages"] = quantize.quantize_checkpoint(checkpoint, recipe, scratch, progress)
        served = Checkpoint(quantized)
    if not recipe.reference:
        placed = place_checkpoint(served.folder, version / CHECKPOINT_FOLDER)
        if served is not checkpoint:
            place_checkpoint(checkpoint.folder, version / CHECKPOINT_FOLDER, TOKENIZER_FILES)
        figures |= {"bytes": placed.bytes, "linked": placed.linked}
    write_tokenizer_files(checkpoint, version)

    progress.begin("verify", "against the source")
    if recipe.checkpoint_quantization is not None:
        figures |= quantize.verify(checkpoint, served, recipe.checkpoint_quantization, progress)
    elif not (recipe.reference and isinstance(source, HubSource)):
        figures["parameters"] = check_weights(served if recipe.reference else Checkpoint(version / CHECKPOINT_FOLDER))
    if checkpoint.chat_template() is None:
        progress.note(f"{recipe.source} has no chat template: the model serves completions only, not chats.")
    _write_model(recipe, source, checkpoint, folder, progress)
    return {"target": recipe.target, "weights": "reference" if recipe.reference else "model", **figures}


def engine_arguments(recipe: LLMRecipe, model: str, revision: str | None, context_length: int) -> dict[str, Any]:
    """Return the content of `model.json` or `model.yaml`. `model` is a path or a hub id, `revision` a commit of it.

    Behind our backend, `max_rows` and `context_length` are parameters of `config.pbtxt`.
    """
    arguments: dict[str, Any] = {"model": model}
    if revision is not None:
        arguments["revision"] = revision
    arguments["dtype"] = DTYPES[recipe.precision]
    arguments["tensor_parallel_size"] = recipe.tensor_parallel
    arguments["pipeline_parallel_size"] = recipe.pipeline_parallel
    own = recipe.layout == "tritonic"
    if recipe.target == "vllm":
        if recipe.kv_cache_precision != "auto":
            arguments["kv_cache_dtype"] = recipe.kv_cache_precision
        return arguments if own else arguments | {"max_model_len": context_length, "max_num_seqs": recipe.max_rows}
    arguments["backend"] = "pytorch"
    if recipe.kv_cache_precision != "auto":
        arguments["kv_cache_config"] = {"dtype": recipe.kv_cache_precision}
    if not own:
        arguments |= {"max_seq_len": context_length, "max_batch_size": recipe.max_rows}
        arguments["triton_config"] = {"max_batch_size": 0, "decoupled": True}
    return arguments


def _write_model(recipe: LLMRecipe, source: Source, checkpoint: Checkpoint, folder: Path, progress: Progress) -> None:
    """Write the engine's arguments and `config.pbtxt`."""
    model, revision = _location(recipe, source)
    context_length = triton_config.context_length(recipe, checkpoint)
    arguments = engine_arguments(recipe, model, revision, context_length)
    if recipe.target == "vllm":
        text = json.dumps(arguments, indent=2) + "\n"
        (folder / "1" / "model.json").write_text(text, encoding="utf-8")
    else:
        import yaml  # comes with transformers

        text = yaml.safe_dump(arguments, sort_keys=False)
        (folder / "1" / "model.yaml").write_text(text, encoding="utf-8")
    if recipe.layout == "nvidia":
        nvidia_layout.write(recipe, checkpoint, folder, context_length, progress)
        return
    config = triton_config.render(
        recipe,
        checkpoint,
        engine=recipe.target,
        precision=recipe.checkpoint_quantization or _precision(recipe, checkpoint),
        supports_images=supports_images(checkpoint),
        instance_kind="KIND_MODEL" if recipe.device == "cuda" else "KIND_CPU",
    )
    (folder / "config.pbtxt").write_text(config, encoding="utf-8", newline="")


def supports_images(checkpoint: Checkpoint) -> bool:
    """Return whether prompts of the checkpoint have a placeholder for images, which the backend `llm` looks for."""
    config = checkpoint.config()
    return isinstance(config.get("image_token_id", config.get("image_token_index")), int)


def _location(recipe: LLMRecipe, source: Source) -> tuple[str, str | None]:
    """Return where the engine finds the weights, and the commit of a hub id."""
    if recipe.reference and isinstance(source, HubSource):
        return source.id, source.commit
    if recipe.reference and isinstance(source, LocalSource):
        return str(source.path), None
    if recipe.layout == "tritonic":
        return CHECKPOINT_FOLDER, None
    return os.path.join(recipe.mounted_at, recipe.name, "1", CHECKPOINT_FOLDER), None  # noqa: PTH118 - a path of Triton


def _precision(recipe: LLMRecipe, checkpoint: Checkpoint) -> str:
    """Return the number format in which the weights are served."""
    if recipe.precision != "checkpoint":
        return recipe.precision
    config = checkpoint.config()
    if "quantization_config" in config:
        return str(config["quantization_config"].get("quant_method", "quantized"))
    dtype = str(config.get("dtype", config.get("torch_dtype", "auto")))
    return _DTYPE_NAMES.get(dtype, dtype)
