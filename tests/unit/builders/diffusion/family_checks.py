"""Checks of a built pipeline: all its parts are there, and none is far from its source."""

import json

from builders.build import BuildResult
from builders.diffusion import pipeline

PARTS = {
    "sd": {"text-encoder"},
    "sdxl": {"text-encoder", "text-encoder-2"},
    "sd3": {"text-encoder", "text-encoder-2", "text-encoder-3"},
    "flux-dev": {"text-encoder", "text-encoder-2"},
}

KINDS_TO_CLASSES = {
    "sd": "StableDiffusionPipeline",
    "sdxl": "StableDiffusionXLPipeline",
    "sd3": "StableDiffusion3Pipeline",
    "flux-dev": "FluxPipeline",
}


def check_built_family(kind: str, built_model: BuildResult) -> None:
    parts = PARTS[kind] | {"denoiser", "vae-encoder", "vae-decoder"}
    assert {path.name for path in built_model.folder.parent.iterdir()} == {"tiny", *(f"tiny-{name}" for name in parts)}
    assert set(built_model.metrics) == parts | {"together"}
    for name in parts:
        assert built_model.metrics[name]["exporter"] == "dynamo", built_model.metrics[name]
        assert built_model.metrics[name]["difference"] < 1e-5
        assert built_model.metrics[name]["largest"] > 1e-2, "zeros would be equal to anything"
    assert built_model.metrics["together"]["latent_difference"] < 1e-4
    assert built_model.metrics["together"]["pixel_difference"] < 1e-3
    written = json.loads((built_model.folder / "1" / "pipeline.json").read_bytes())
    assert written["family"] == pipeline.PIPELINE_FAMILIES[KINDS_TO_CLASSES[kind]]
    assert {f"tiny-{name}" for name in PARTS[kind]} == set(written["components"]["text_encoders"])
