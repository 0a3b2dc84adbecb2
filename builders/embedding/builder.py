"""Build an embedding model from a sentence-transformers folder: fetch, export, verify."""

import importlib.util
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from builders import repository, tensorrt_plan
from builders.embedding import export_step, sentence_model, triton_config
from builders.embedding.family import EmbeddingRecipe
from builders.embedding.sentence_model import SentenceModel
from builders.embedding.triton_config import Network
from builders.embedding.verify import verify
from builders.engine_targets import EngineTargets
from builders.errors import MissingDependency, NotEnoughSpace, RecipeError, SourceUnavailable, UnsupportedModel
from builders.family import Builder
from builders.progress import Progress
from builders.recipe import Recipe
from builders.sources import Source

COPIED_FILES = ("tokenizer.json", "tokenizer_config.json", "config.json")
"""Files copied from the checkpoint unchanged."""

TARGETS = EngineTargets(
    "embedding models",
    {("onnx", "cpu"): ("fp32", "int8"), ("onnx", "cuda"): ("fp32", "fp16"), ("tensorrt", "cuda"): ("fp32", "fp16")},
)

UNSUPPORTED_OPTIONS = ("tolerance", "tool_call_parser", "reasoning_parser", "quantization")
"""Recipe fields for text-generation models that have no meaning here."""


class EmbeddingBuilder(Builder):
    """Builds embedding models."""

    def sibling_models(self, recipe: Recipe, source: Source) -> tuple[str, ...]:
        """Return the name of the model that holds the network, if it is not the backend that runs it."""
        return (triton_config.encoder_name(recipe),) if recipe.target == "tensorrt" else ()

    def check(self, recipe: Recipe, source: Source) -> int:
        """Return the bytes of disk that a build needs.

        Raises UnsupportedModel, RecipeError, NotEnoughSpace, MissingDependency.
        """
        assert isinstance(recipe, EmbeddingRecipe)
        TARGETS.check(recipe.target, recipe.device, recipe.precision)
        for name in UNSUPPORTED_OPTIONS:
            if getattr(recipe, name) is not None:
                raise RecipeError(f"{name} is not an option of embedding models.")
        for package in ("torch", "transformers", "onnxscript", "onnxruntime"):
            if importlib.util.find_spec(package) is None:
                raise MissingDependency(package)
        if recipe.target == "tensorrt":
            tensorrt_plan.check()
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
        assert isinstance(recipe, EmbeddingRecipe)
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
        served = folder / "1"
        engine = served if recipe.target == "onnx" else scratch / "onnx"
        export_step.export(checkpoint.folder, recipe, engine)
        served.mkdir(exist_ok=True)
        for name in COPIED_FILES:
            if (model.transformer.folder / name).is_file():
                for copied_to in {served, engine}:
                    shutil.copyfile(model.transformer.folder / name, copied_to / name)

        progress.begin("verify", "against the source model")
        figures = verify(model, engine, context_length, recipe.precision, progress)
        network = _network(engine / "model.onnx")
        if recipe.target == "tensorrt":
            _build_plan(recipe, network, context_length, engine / "model.onnx", folder, progress)
        config = triton_config.render_model(recipe, model, context_length, network)
        (folder / "config.pbtxt").write_text(config, encoding="utf-8", newline="")
        return {name: value for name, value in asdict(figures).items() if value is not None}


def _build_plan(
    recipe: EmbeddingRecipe, network: Network, context_length: int, onnx: Path, folder: Path, progress: Progress
) -> None:
    """Compile the network to a plan in a model of its own, next to `folder`, and compare it with its ONNX file."""
    encoder = repository.parts_folder(folder) / triton_config.encoder_name(recipe)
    plan = encoder / "1" / tensorrt_plan.FILE_NAME
    progress.update("building the plan of the network")
    tensorrt_plan.build("network", onnx, plan, triton_config.plan_profile(recipe, context_length))
    if not tensorrt_plan.has_python_package():
        progress.note("The plan was not compared: that needs the Python package tensorrt.")
    else:
        examples = triton_config.plan_examples(recipe, context_length, network)
        if not tensorrt_plan.compare("network", onnx, plan, examples, recipe.precision):
            progress.note("The plan was not compared: this PyTorch does not know the GPU.")
    text = triton_config.render_encoder(recipe, network)
    (encoder / "config.pbtxt").write_text(text, encoding="utf-8", newline="")


def _context_length(recipe: Recipe, model: SentenceModel) -> int:
    limit = model.max_positions
    if recipe.context_length is not None and recipe.context_length > limit:
        raise RecipeError(f"context_length {recipe.context_length} is more than the model takes: {limit}.")
    return recipe.context_length or model.max_length


def _network(onnx_file: Path) -> Network:
    import onnx

    graph = onnx.load(str(onnx_file), load_external_data=False)
    (output,) = graph.graph.output
    metadata = {entry.key: entry.value for entry in graph.metadata_props}
    return Network(int(output.type.tensor_type.shape.dim[1].dim_value), int(metadata["vocab_size"]))
