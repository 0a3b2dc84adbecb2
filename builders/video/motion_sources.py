"""A source of two: a Stable Diffusion pipeline, and the motion adapter that makes it AnimateDiff."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from builders import sources
from builders.checkpoint import Checkpoint, read_json
from builders.diffusion import sources as pipeline_sources
from builders.diffusion.pipeline import component_class
from builders.errors import RecipeError, UnsupportedModel
from builders.progress import Progress
from builders.video.motion_pipeline import ADAPTER, check_motion_index

SEPARATOR = " + "
"""Between the pipeline and the adapter in a recipe's `source`."""

_BASE_FOLDERS = ("text_encoder", "tokenizer", "unet", "vae")
_SCHEDULER = {
    "beta_schedule": "linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "linspace",
}
"""Options with which the published adapters were trained and are shown, for `DDIMScheduler`."""


@dataclass(frozen=True)
class MotionSource:
    """A Stable Diffusion pipeline and a motion adapter, each a folder or a Hugging Face id."""

    base: sources.Source
    adapter: sources.Source

    @classmethod
    def resolve(cls, source: str, revision: str | None = None) -> Self:
        """Return the source that "PIPELINE + ADAPTER" names; `revision` is that of the pipeline.

        Raises RecipeError, SourceUnavailable.
        """
        names = [name.strip() for name in source.split(SEPARATOR)]
        if len(names) != 2 or not all(names):
            raise RecipeError(f"The source {source!r} must name a pipeline and a motion adapter, with ' + ' between.")
        if names[1].startswith("packaged:"):
            raise RecipeError("There is no packaged motion adapter.")
        return cls(pipeline_sources.resolve(names[0], revision), sources.resolve(names[1]))

    def digest(self) -> str:
        """Return the digests of both."""
        return f"{self.base.digest()} + {self.adapter.digest()}"

    def config(self) -> dict[str, Any]:
        """Return the `model_index.json` of the two together. Raises SourceUnavailable, UnsupportedModel."""
        kind = self.adapter.config().get("_class_name")
        if kind != "MotionAdapter":
            raise UnsupportedModel(f"The motion adapter is of the class {kind}; MotionAdapter is built.")
        base = self.base.config()
        if component_class(base, "unet") != "UNet2DConditionModel":
            raise UnsupportedModel(f"A motion adapter needs a Stable Diffusion pipeline, not {base['_class_name']}.")
        index = {name: base.get(name) for name in _BASE_FOLDERS}
        index |= {
            "_class_name": "AnimateDiffPipeline",
            "scheduler": ["diffusers", "DDIMScheduler"],
            ADAPTER: ["diffusers", "MotionAdapter"],
        }
        check_motion_index(index)
        return index

    def num_parameters(self) -> int | None:
        """Count the parameters of both; None if one is not known."""
        counts = self.base.num_parameters(), self.adapter.num_parameters()
        return None if counts[0] is None or counts[1] is None else counts[0] + counts[1]

    def scratch_bytes(self) -> int:
        """Return the bytes that both need."""
        return self.base.scratch_bytes() + self.adapter.scratch_bytes()

    def fetch(self, scratch: Path, progress: Progress) -> Checkpoint:
        """Fetch both; return a folder in `scratch` in which links join them. Raises SourceUnavailable."""
        index = self.config()
        base, adapter = self.base.fetch(scratch, progress).folder, self.adapter.fetch(scratch, progress).folder
        folder = scratch / "joined"
        (folder / "scheduler").mkdir(parents=True)
        for name in _BASE_FOLDERS:
            (folder / name).symlink_to(base / name, target_is_directory=True)
        (folder / ADAPTER).symlink_to(adapter, target_is_directory=True)
        scheduler = read_json(base / "scheduler" / "scheduler_config.json", needed=True)
        kept = {key: scheduler[key] for key in ("beta_start", "beta_end", "num_train_timesteps") if key in scheduler}
        _write(folder / "scheduler" / "scheduler_config.json", kept | _SCHEDULER | {"_class_name": "DDIMScheduler"})
        _write(folder / "model_index.json", index)
        return Checkpoint(folder)


def _write(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
