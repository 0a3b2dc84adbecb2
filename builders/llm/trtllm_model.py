"""The target `tensorrt_llm`: an engine of TensorRT-LLM in NVIDIA's models `inflight_batcher_llm`.

ModelOpt writes the checkpoint, `trtllm-build` compiles it on the GPU that serves it, and the templates of the container
become an ensemble, which is named after the recipe, and its steps. Where `trtllm-build` is missing, the checkpoint is
installed with the command that compiles it. Frozen: see `targets.FROZEN`.
"""

import os
import shlex
import shutil
from pathlib import Path
from typing import Any

from builders import subprocess_step
from builders.checkpoint import Checkpoint, read_json
from builders.errors import ExportFailed, UnsupportedModel, VerificationFailed
from builders.llm import nvidia_layout, triton_config, trtllm_templates
from builders.llm.installed_files import TOKENIZER_FILES, place_checkpoint, write_tokenizer_files
from builders.llm.quantization import quantize
from builders.llm.quantization.compare import rope_parameters
from builders.llm.quantization.tensors import stored_tensors
from builders.llm.recipe import LLMRecipe
from builders.llm.targets import FROZEN
from builders.progress import Progress
from builders.repository import parts_folder
from builders.sources import Source

BUILD_COMMAND = "trtllm-build"
ENGINE_MODEL = "tensorrt_llm"

DECODER_TYPES = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "llama",
    "MixtralForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen",
    "Qwen3ForCausalLM": "qwen",
    "Phi3ForCausalLM": "phi3",
    "GemmaForCausalLM": "gemma",
    "Gemma2ForCausalLM": "gemma2",
}
"""ModelOpt's names of the architectures that it writes for TensorRT-LLM."""

MAX_NUM_TOKENS = 8192
"""Tokens of one step. Longer prompts are computed in several."""


def check(recipe: LLMRecipe, source: Source) -> int:
    """Return the bytes of disk that a build needs.

    Raises SourceUnavailable, UnsupportedModel, MissingDependency, NotEnoughSpace.
    """
    assert recipe.templates is not None
    trtllm_templates.check(Path(recipe.templates))
    parameters = source.num_parameters() or 0
    quantize.check(recipe, parameters)
    _decoder_type(source.config())
    return source.scratch_bytes() + 6 * parameters + 64_000_000


def build(recipe: LLMRecipe, source: Source, folder: Path, scratch: Path, progress: Progress) -> dict[str, Any]:
    """Write the ensemble into `folder` and its steps beside it; return the figures. Raises BuildError."""
    progress.begin("fetch", recipe.source)
    progress.note(FROZEN)
    checkpoint = source.fetch(scratch, progress)
    checkpoint.check_tokenizer()
    context_length = triton_config.context_length(recipe, checkpoint)

    progress.begin("export", f"{recipe.checkpoint_quantization or recipe.precision} for {recipe.target}")
    layout = {
        "decoder_type": _decoder_type(checkpoint.config()),
        "tensor_parallel": recipe.tensor_parallel,
        "pipeline_parallel": recipe.pipeline_parallel,
    }
    exported, packages = quantize.quantize_checkpoint(checkpoint, recipe, scratch, progress, layout)
    _write_models(recipe, checkpoint, folder, context_length, progress)
    engine = parts_folder(folder) / ENGINE_MODEL / "1"
    compiled = _compile(recipe, exported, engine, context_length, progress)

    progress.begin("verify", "the checkpoint")
    verify_checkpoint(checkpoint.config(), exported, recipe.tensor_parallel * recipe.pipeline_parallel)
    return {"target": recipe.target, "frozen": FROZEN, "packages": packages, "compiled": compiled}


def engine_command(recipe: LLMRecipe, checkpoint: str, engine: str, context_length: int) -> list[str]:
    """Return the command that compiles the folder `checkpoint` into the folder `engine`."""
    fp8 = recipe.checkpoint_quantization == "fp8" and recipe.kv_cache_precision == "fp8"
    options = {
        "checkpoint_dir": checkpoint,
        "output_dir": engine,
        "workers": recipe.tensor_parallel * recipe.pipeline_parallel,
        "gemm_plugin": "auto",
        "max_batch_size": recipe.max_rows,
        "max_input_len": context_length,
        "max_seq_len": context_length,
        "max_num_tokens": MAX_NUM_TOKENS,
        "max_beam_width": 1,
        "kv_cache_type": "paged",
        "tokens_per_block": 32,
        "use_paged_context_fmha": "enable",
        **({"use_fp8_context_fmha": "enable"} if fp8 else {}),
        **({"reduce_fusion": "enable"} if recipe.tensor_parallel > 1 else {}),
        "multiple_profiles": "enable",
    }
    return [BUILD_COMMAND, *(text for name, value in options.items() for text in (f"--{name}", str(value)))]


def verify_checkpoint(source_config: dict[str, Any], exported: Path, ranks: int) -> None:
    """Raise VerificationFailed unless a checkpoint of TensorRT-LLM has all its parts and its rotary embedding.

    Its matrices are joined and split for several GPUs, so they are not compared with the source.
    """
    config = read_json(exported / "config.json", needed=True)
    missing = [
        f"rank{rank}.safetensors" for rank in range(ranks) if not (exported / f"rank{rank}.safetensors").is_file()
    ]
    if missing or not stored_tensors(exported):
        raise VerificationFailed(f"ModelOpt wrote no {', '.join(missing) or 'tensors'}, so nothing was installed.")
    expected = rope_parameters(source_config)
    scaling = config.get("rotary_scaling") or {}
    found = {"rope_theta": config.get("rotary_base", 10000.0), "factor": scaling.get("factor")}
    wanted = {"rope_theta": expected.get("rope_theta"), "factor": expected.get("factor")}
    if found != wanted:
        raise VerificationFailed(
            f"The rotary embedding was lost: the source has {wanted}, the checkpoint of TensorRT-LLM {found}, so "
            "nothing was installed. ModelOpt 0.47 needs transformers 4.57.3."
        )


def _decoder_type(config: dict[str, Any]) -> str:
    architecture = (config.get("architectures") or ["(none named in config.json)"])[0]
    if architecture not in DECODER_TYPES:
        raise UnsupportedModel(
            f"The architecture {architecture} is not built for tensorrt_llm. Known: {', '.join(DECODER_TYPES)}. "
            "For others choose the target llmapi or vllm."
        )
    return DECODER_TYPES[architecture]


def _write_models(
    recipe: LLMRecipe, checkpoint: Checkpoint, folder: Path, context_length: int, progress: Progress
) -> None:
    """Write the filled templates, the tokenizer and the entry of a models file."""
    assert recipe.templates is not None
    tokenizer = folder / "1" / "tokenizer"
    tokenizer.mkdir(parents=True)
    write_tokenizer_files(checkpoint, tokenizer)
    place_checkpoint(checkpoint.folder, tokenizer, TOKENIZER_FILES)
    nvidia_layout.write_template(checkpoint, tokenizer)
    given = trtllm_templates.values(
        engine_folder=_mounted(recipe, ENGINE_MODEL, "1"),
        tokenizer_folder=_mounted(recipe, recipe.name, "1", "tokenizer"),
        max_rows=recipe.max_rows,
        max_waiting=recipe.max_waiting,
    )
    trtllm_templates.write_models(Path(recipe.templates), folder, parts_folder(folder), recipe.name, given)
    described = nvidia_layout.models_toml(recipe, checkpoint, recipe.name, context_length, "1/tokenizer")
    hidden = '\n[models."tensorrt_llm_bls"]\nhidden = true\n'
    nvidia_layout.write_models_toml(described + hidden, folder, progress)


def _compile(recipe: LLMRecipe, checkpoint: Path, engine: Path, context_length: int, progress: Progress) -> bool:
    """Compile the engine, or install the checkpoint and the command. Return whether it was compiled."""
    if shutil.which(BUILD_COMMAND) is None:
        place_checkpoint(checkpoint, engine / "checkpoint")
        script = engine / "trtllm-build.sh"
        command = shlex.join(engine_command(recipe, "checkpoint", ".", context_length))
        script.write_text(f'#!/bin/sh\nset -e\ncd "$(dirname "$0")"\n{command}\nrm -r checkpoint\n', encoding="utf-8")
        script.chmod(0o755)
        progress.note(
            f"{BUILD_COMMAND} is not here. Run {ENGINE_MODEL}/1/{script.name} in a container that has it, on the GPU "
            f"that serves the model, before Triton loads it:\n{command}"
        )
        return False
    progress.update("compiling the engine")
    command_line = engine_command(recipe, str(checkpoint), str(engine), context_length)
    status, output = subprocess_step.run_command(command_line, progress.update)
    if status != 0 or not list(engine.glob("*.engine")):
        raise ExportFailed(f"{BUILD_COMMAND} cannot compile the engine. The end of what it said:\n{output}")
    return True


def _mounted(recipe: LLMRecipe, *parts: str) -> str:
    return os.path.join(recipe.mounted_at, *parts)  # noqa: PTH118 - a path of Triton
