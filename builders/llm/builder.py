"""Build a text-generation model: fetch, export, verify."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from builders.errors import NotEnoughSpace
from builders.family import Builder
from builders.llm import export_step, runtime_model, targets, triton_config, trtllm_model, trtllm_templates
from builders.llm.installed_files import write_tokenizer_files
from builders.llm.onnx_decoder import providers
from builders.llm.recipe import LLMRecipe, refusal_of
from builders.llm.verify import TOLERANCES, verify
from builders.progress import Progress
from builders.recipe import Recipe
from builders.sources import Source
from builders.vision import idefics3
from builders.vision.split import split_checkpoint
from builders.vision.verify import verify as verify_images

BYTES_PER_PARAMETER = {"fp32": 4.1, "fp16": 2.1, "int8": 2.1, "int4": 0.9}
"""Size of the engine. int8 keeps the embedding in fp32."""


RUNTIMES = ("vllm", "llmapi")
"""Targets that load checkpoints as they are."""


class LLMBuilder(Builder):
    """Builds text-generation models, with or without vision."""

    def sibling_models(self, recipe: Recipe, source: Source) -> tuple[str, ...]:
        """Return the steps of TensorRT-LLM's ensemble, which have fixed names."""
        return trtllm_templates.STEPS if recipe.target == "tensorrt_llm" else ()

    def check(self, recipe: Recipe, source: Source) -> int:
        """Return the bytes of disk that a build needs. Raises UnsupportedModel, NotEnoughSpace, MissingDependency."""
        assert isinstance(recipe, LLMRecipe)
        targets.check(refusal_of(recipe))
        if recipe.target in RUNTIMES:
            return runtime_model.check(recipe, source)
        if recipe.target == "tensorrt_llm":
            return trtllm_model.check(recipe, source)
        config = source.config()
        export_step.check(recipe, _text_config(config))
        parameters = source.num_parameters() or 0
        _check_memory(parameters)
        # A vision-language model is also split in fp32: the text model for the exporter, the rest for the engine.
        parts = 4 * parameters if idefics3.is_idefics3(config) else 0
        return source.scratch_bytes() + parts + int(parameters * BYTES_PER_PARAMETER[recipe.precision]) + 64_000_000

    def build(self, recipe: Recipe, source: Source, folder: Path, scratch: Path, progress: Progress) -> dict[str, Any]:
        """Build the engine and `config.pbtxt` into `folder`; return the figures of the verification."""
        assert isinstance(recipe, LLMRecipe)
        if recipe.target in RUNTIMES:
            return runtime_model.build(recipe, source, folder, scratch, progress)
        if recipe.target == "tensorrt_llm":
            return trtllm_model.build(recipe, source, folder, scratch, progress)
        progress.begin("fetch", recipe.source)
        checkpoint = source.fetch(scratch, progress)
        checkpoint.check_tokenizer()
        export_step.check(recipe, _text_config(checkpoint.config()))
        supports_images = idefics3.is_idefics3(checkpoint.config())
        triton_config.context_length(recipe, checkpoint)

        progress.begin("export", f"{recipe.precision} for {recipe.target} on {recipe.device}")
        engine = folder / "1"
        text_checkpoint = split_checkpoint(checkpoint, engine, scratch, progress) if supports_images else checkpoint
        export_step.export(text_checkpoint.folder, recipe, engine, scratch, progress, vectors=supports_images)
        write_tokenizer_files(checkpoint, engine)

        progress.begin("verify", "against the source model")
        tolerance = recipe.tolerance or TOLERANCES[recipe.precision]
        figures = asdict(verify(text_checkpoint, engine, tolerance, progress, recipe.device))
        if supports_images:
            figures["pictures"] = asdict(verify_images(checkpoint, engine, tolerance, progress))
        if recipe.device == "cuda":
            figures["provider"] = providers(recipe.device)[0]
            if figures["provider"] == "CPUExecutionProvider":
                progress.note("The engine was verified with the kernels of the CPU: onnxruntime has no CUDA here.")
        if checkpoint.chat_template() is None:
            progress.note(f"{recipe.source} has no chat template: the model serves completions only, not chats.")
        config = triton_config.render(
            recipe,
            checkpoint,
            engine="onnxruntime",
            precision=recipe.precision,
            supports_images=supports_images,
            threads=recipe.threads,
            instance_kind="KIND_GPU" if recipe.device == "cuda" else "KIND_CPU",
            gpus=[recipe.gpu or 0] if recipe.device == "cuda" else [],
        )
        (folder / "config.pbtxt").write_text(config, encoding="utf-8", newline="")
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
