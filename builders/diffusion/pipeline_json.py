"""Write `pipeline.json`, from which the pipeline model knows its engines, and the tokenizers next to it."""

import inspect
import json
from pathlib import Path
from typing import Any

from builders.checkpoint import read_json
from builders.diffusion.library_logging import silence_libraries
from builders.diffusion.parts import pipeline_parts
from builders.diffusion.pipeline import Pipeline, PipelineFolder, component_class, num_t5_tokens, tokenizer_folder
from builders.errors import SourceUnavailable

FILE_NAME = "pipeline.json"


def part_model_name(name: str, part: str) -> str:
    """Return the Triton model name of a part of the pipeline `name`."""
    return f"{name}-{part}"


def describe(pipeline: Pipeline, name: str) -> dict[str, Any]:
    """Return the description of a pipeline whose part models are named after `name`, without `pad_id`s."""
    vae = pipeline.config("vae")
    text_encoders = [part for part in pipeline_parts(pipeline) if part.kind in ("clip", "t5")]
    description: dict[str, Any] = {
        "family": pipeline.family,
        "components": {
            "text_encoders": [part_model_name(name, part.name) for part in text_encoders],
            "denoiser": part_model_name(name, "denoiser"),
            "vae_encoder": part_model_name(name, "vae-encoder"),
            "vae_decoder": part_model_name(name, "vae-decoder"),
        },
        "tokenizers": [
            {
                "folder": tokenizer_folder(part.component),
                "max_length": pipeline.num_tokens(part.component),
                "outputs": [port.name for port in part.outputs],
            }
            for part in text_encoders
        ],
        "scheduler": describe_scheduler(pipeline),
        "vae": {
            "scaling_factor": vae.get("scaling_factor") or 0.18215,
            "shift_factor": vae.get("shift_factor") or 0.0,
            "factor": pipeline.vae_scale_factor,
            "channels": pipeline.latent_channels,
        }
        | {key: vae[key] for key in ("latents_mean", "latents_std") if vae.get(key) is not None},
        "guidance": pipeline.guidance,
        "size_multiple": pipeline.size_multiple,
    }
    return description | _family_fields(pipeline)


def describe_scheduler(pipeline: PipelineFolder) -> dict[str, Any]:
    """Return the class and the options of the scheduler, as the pipeline applies them."""
    import diffusers

    name = component_class(pipeline.index, "scheduler")
    options = read_json(pipeline.folder / "scheduler" / "scheduler_config.json", needed=True)
    scheduler = {"class": name} | {key: value for key, value in options.items() if not key.startswith("_")}
    if pipeline.index.get("_class_name") == "StableDiffusionPipeline":
        # As in diffusers, which overrides other values of the file as mistakes of old checkpoints.
        known = inspect.signature(getattr(diffusers, str(name))).parameters
        scheduler |= {key: value for key, value in (("steps_offset", 1), ("clip_sample", False)) if key in known}
    return scheduler


def _family_fields(pipeline: Pipeline) -> dict[str, Any]:
    if pipeline.family == "stable-diffusion-xl":
        return {"force_zeros_for_empty_prompt": bool(pipeline.index.get("force_zeros_for_empty_prompt", True))}
    if pipeline.family == "stable-diffusion-3":
        width = pipeline.config("transformer")["joint_attention_dim"]
        return {"patch_size": pipeline.patch_size, "joint_attention_dim": width, "t5_tokens": num_t5_tokens(pipeline)}
    return {"patch_size": pipeline.patch_size} if pipeline.family == "flux" else {}


def write(pipeline: Pipeline, name: str, folder: Path, max_batch: int = 16) -> dict[str, Any]:
    """Write `pipeline.json` and the tokenizers into `folder`; return the description. Raises SourceUnavailable.

    `max_batch` is the largest batch of each engine, in rows.
    """
    description = describe(pipeline, name) | {"max_batch": max_batch}
    for entry in description["tokenizers"]:
        entry["pad_id"] = write_tokenizer(
            pipeline.folder / entry["folder"], folder / entry["folder"], entry["max_length"]
        )
    write_description(description, folder)
    return description


def write_description(description: dict[str, Any], folder: Path) -> None:
    """Write `pipeline.json` into `folder`."""
    text = json.dumps(description, indent=2, ensure_ascii=False)
    (folder / FILE_NAME).write_text(text + "\n", encoding="utf-8")


def write_tokenizer(source: Path, folder: Path, tokens: int) -> int:
    """Write a `tokenizer.json` that truncates and pads to `tokens` tokens; return the id of the padding token.

    Raises SourceUnavailable.
    """
    from tokenizers import Tokenizer

    slow = load_tokenizer(source)
    tokenizer = Tokenizer.from_str(slow.backend_tokenizer.to_str())
    tokenizer.enable_truncation(tokens)
    tokenizer.enable_padding(length=tokens, pad_id=slow.pad_token_id, pad_token=str(slow.pad_token))
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return int(slow.pad_token_id)


def load_tokenizer(source: Path) -> Any:
    """Load the tokenizer in a folder. Raises SourceUnavailable if it cannot be read, or has no token that pads."""
    import transformers

    config = read_json(source / "tokenizer_config.json")
    kind: Any = getattr(transformers, str(config.get("tokenizer_class")), None)
    if not (isinstance(kind, type) and issubclass(kind, transformers.PreTrainedTokenizerBase)):
        kind = transformers.AutoTokenizer  # the checkpoint names no class of transformers
    silence_libraries()
    try:
        tokenizer = kind.from_pretrained(source, local_files_only=True, trust_remote_code=False)
        tokenizer.backend_tokenizer.to_str()
    except Exception as error:  # each library raises errors of its own
        raise SourceUnavailable(f"The tokenizer in {source} cannot be read: {error}") from error
    if tokenizer.pad_token_id is None:
        raise SourceUnavailable(f"The tokenizer in {source} has no token that pads.")
    return tokenizer
