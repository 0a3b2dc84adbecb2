"""Build a pipeline of diffusers: fetch it, export and verify each part, verify all parts together."""

import gc
import importlib.util
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import psutil

from builders import repository, tensorrt_plan
from builders.diffusion import sources, tensorrt, triton_config
from builders.diffusion.family import DiffusionRecipe
from builders.diffusion.part_comparison import PartMetrics
from builders.diffusion.parts import PipelinePart
from builders.diffusion.pipeline import PipelineFolder
from builders.diffusion.pipeline_json import part_model_name
from builders.diffusion.reference_pipeline import Engines
from builders.engine_targets import EngineTargets
from builders.errors import MissingDependency, NotEnoughSpace, RecipeError
from builders.family import Builder
from builders.progress import Progress
from builders.recipe import Recipe
from builders.sources import Source

UNSUPPORTED_OPTIONS = ("tolerance", "tool_call_parser", "reasoning_parser", "quantization", "context_length")
"""Recipe fields for text-generation models that have no meaning here."""

P = TypeVar("P", bound=PipelineFolder)
R = TypeVar("R", bound=DiffusionRecipe)


class PipelineBuilder(Builder, Generic[P, R]):
    """Builds pipelines that a subclass reads, exports and compares. `R` is the family's class of recipes."""

    kind: ClassVar[sources.PipelineKind]
    targets: ClassVar[EngineTargets]

    def resolve(self, source: str, revision: str | None) -> Source:
        """Return the pipeline that a recipe names as its source. Raises RecipeError, SourceUnavailable."""
        return sources.resolve(source, revision, self.kind)

    def sibling_models(self, recipe: Recipe, source: Source) -> tuple[str, ...]:
        """Return the names of the parts' models."""
        return tuple(part_model_name(recipe.name, name) for name in self.part_names(source.config()))

    def check(self, recipe: Recipe, source: Source) -> int:
        """Return the bytes of disk that a build needs.

        Raises UnsupportedModel, RecipeError, NotEnoughSpace, MissingDependency.
        """
        assert isinstance(recipe, DiffusionRecipe)
        self.targets.check(recipe.target, recipe.device, recipe.precision)
        for name in UNSUPPORTED_OPTIONS:
            if getattr(recipe, name) is not None:
                raise RecipeError(f"{name} is not an option of {self.targets.models}.")
        for package in ("torch", "diffusers", "transformers", "onnxscript", "onnxruntime"):
            if importlib.util.find_spec(package) is None:
                raise MissingDependency(package)
        if recipe.target == "tensorrt":
            tensorrt_plan.check()
        self.kind.check(source.config())
        weights = 4 * (source.num_parameters() or 0)
        total = psutil.virtual_memory().total
        if weights > total:
            raise NotEnoughSpace(
                f"The pipeline has {weights / 4e9:.1f} billion parameters, so building it needs {weights / 1e9:.0f} GB "
                f"of memory, and this machine has {total / 1e9:.0f} GB. Build it on a larger one and copy its models."
            )
        engines = 1 if recipe.target == "onnx" else 2
        return source.scratch_bytes() + engines * weights + 64_000_000

    def build(self, recipe: Recipe, source: Source, folder: Path, scratch: Path, progress: Progress) -> dict[str, Any]:
        """Build the pipeline model into `folder` and its parts next to it; return the figures of the verification."""
        chosen: R = recipe  # type: ignore[assignment]  # `recipe.make` returns the class that the family declares
        progress.begin("fetch", recipe.source)
        pipeline = self.read(source.fetch(scratch, progress).folder)
        pipeline_config = self.render(chosen, pipeline)
        parts = self.parts(pipeline)
        parts_folder = repository.parts_folder(folder)
        names = {part.name: part_model_name(recipe.name, part.name) for part in parts}

        progress.begin("export", f"{recipe.precision} for {recipe.target}")
        onnx = parts_folder if recipe.target == "onnx" else scratch / "onnx"
        exported = self.export(chosen, pipeline, {part: onnx / name / "1" for part, name in names.items()}, progress)
        for name, report in exported.items():
            if report["exporter"] != "dynamo":
                progress.note(
                    f"{name} was written by the older exporter, because the newer one failed: {report['reason']}"
                )
        engine = folder / "1"
        engine.mkdir()
        self.describe(pipeline, recipe.name, engine, triton_config.max_part_batch(recipe))

        progress.begin("verify", "against diffusers")
        figures: dict[str, Any] = {}
        for number, part in enumerate(parts):
            progress.update(f"comparing {part.name}", number / (len(parts) + 1))
            metrics = self.compare_part(chosen, pipeline, part, onnx / names[part.name] / "1" / "model.onnx")
            measured = {name: value for name, value in asdict(metrics).items() if value is not None}
            figures[part.name] = measured | exported[part.name]
            gc.collect()
        progress.update("comparing all together", len(parts) / (len(parts) + 1))
        engines = Engines(engine, lambda name: onnx / name / "1" / "model.onnx")
        figures["together"] = self.compare_together(chosen, pipeline, engines)
        del engines

        if recipe.target == "tensorrt":
            sizes = self.plan_sizes(chosen, pipeline)
            for part in parts:
                plan = parts_folder / names[part.name] / "1" / tensorrt_plan.FILE_NAME
                onnx_file = onnx / names[part.name] / "1" / "model.onnx"
                tensorrt.build_plan(part, onnx_file, plan, sizes, recipe.precision, progress)
        for part in parts:
            text = triton_config.render_part(chosen, names[part.name], part)
            (parts_folder / names[part.name] / "config.pbtxt").write_text(text, encoding="utf-8", newline="")
        (folder / "config.pbtxt").write_text(pipeline_config, encoding="utf-8", newline="")
        return figures

    @abstractmethod
    def part_names(self, index: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the names of the parts of a pipeline, of which only `model_index.json` is known."""

    @abstractmethod
    def read(self, folder: Path) -> P:
        """Read the pipeline in a folder. Raises SourceUnavailable, UnsupportedModel."""

    @abstractmethod
    def parts(self, pipeline: P) -> tuple[PipelinePart, ...]:
        """Return the parts of a pipeline, whose names are `part_names`."""

    @abstractmethod
    def export(self, recipe: R, pipeline: P, outputs: dict[str, Path], progress: Progress) -> dict[str, dict[str, str]]:
        """Export the parts named in `outputs`; return the report of `onnx_export.export`. Raises ExportFailed."""

    @abstractmethod
    def describe(self, pipeline: P, name: str, folder: Path, max_batch: int) -> object:
        """Write `pipeline.json` and the tokenizers into `folder`. Raises SourceUnavailable."""

    @abstractmethod
    def compare_part(self, recipe: R, pipeline: P, part: PipelinePart, model: Path) -> PartMetrics:
        """Compare a part's engine with its source network. Raises VerificationFailed, MissingDependency."""

    @abstractmethod
    def compare_together(self, recipe: R, pipeline: P, engines: Engines) -> dict[str, Any]:
        """Compare what all engines make together with what diffusers makes. Raises VerificationFailed."""

    @abstractmethod
    def plan_sizes(self, recipe: R, pipeline: P) -> tensorrt.PlanShapes:
        """Return the sizes of a recipe's plans. Raises RecipeError if they do not suit the model."""

    @abstractmethod
    def render(self, recipe: R, pipeline: P) -> str:
        """Return the `config.pbtxt` of the pipeline model. Raises RecipeError if it does not suit the model."""
