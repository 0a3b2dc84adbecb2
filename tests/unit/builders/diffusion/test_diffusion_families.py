"""Every pipeline family, exported for real and compared with diffusers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_image_recipe import image_recipe

from builders.build import BuildResult, build
from builders.diffusion import export_step, pipeline, pipeline_json
from builders.diffusion.networks import load_part
from builders.diffusion.parts import pipeline_parts
from builders.diffusion.reference_pipeline import Engines
from builders.diffusion.triton_config import default_guidance
from builders.diffusion.verify import verify_images, verify_part
from builders.progress import NullProgress
from tests.fakes.pipelines import KINDS

# Exporting a family takes half a minute on an idle core.
pytestmark = [pytest.mark.exports, pytest.mark.timeout(1800)]

Pipes = Callable[[str], Path]

PARTS = {
    "sd": {"text-encoder"},
    "sdxl": {"text-encoder", "text-encoder-2"},
    "sd3": {"text-encoder", "text-encoder-2", "text-encoder-3"},
    "flux-dev": {"text-encoder", "text-encoder-2"},
}


@pytest.fixture(scope="module", params=["sdxl", "sd3", "flux-dev"])
def family(
    request: pytest.FixtureRequest, pipes: Pipes, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, BuildResult]:
    into = tmp_path_factory.mktemp("families") / "repository"
    return request.param, build(image_recipe(pipes(request.param)), into)


def check(kind: str, built_model: BuildResult) -> None:
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


KINDS_TO_CLASSES = {
    "sd": "StableDiffusionPipeline",
    "sdxl": "StableDiffusionXLPipeline",
    "sd3": "StableDiffusion3Pipeline",
    "flux-dev": "FluxPipeline",
}


def test_stable_diffusion_is_built_with_all_parts(built: BuildResult) -> None:
    check("sd", built)


def test_a_pipeline_family_is_built_with_all_parts(family: tuple[str, BuildResult]) -> None:
    check(*family)


@pytest.mark.parametrize("kind", ["lcm", "sd3.5"])
def test_inputs_of_denoiser_variants_are_exported(kind: str, pipes: Pipes, tmp_path: Path) -> None:
    read = pipeline.read(pipes(kind))
    (denoiser,) = [part for part in pipeline_parts(read) if part.name == "denoiser"]
    report = export_step.export(read, {"denoiser": tmp_path / "1"}, NullProgress())
    figures = verify_part(read, denoiser, tmp_path / "1" / "model.onnx")
    assert report["denoiser"]["exporter"] == "dynamo"
    assert figures.difference < 1e-5 and figures.largest > 1e-2


class Networks(Engines):
    """Runs the networks on PyTorch instead of exported engines, so that all kinds are tested in seconds."""

    def __init__(self, read: pipeline.Pipeline, folder: Path) -> None:
        super().__init__(folder, lambda name: Path(name))
        self._parts = {pipeline_json.part_model_name("tiny", part.name): part for part in pipeline_parts(read)}
        self._networks = {name: load_part(read, part) for name, part in self._parts.items()}

    def run(self, name: str, **inputs: Any) -> list[Any]:
        assert set(inputs) == {port.name for port in self._parts[name].inputs}
        with torch.inference_mode():
            fed = {key: torch.from_numpy(np.array(value)) for key, value in inputs.items()}
            found = self._networks[name](**fed)
        return [tensor.numpy() for tensor in (found if isinstance(found, tuple) else (found,))]


@pytest.mark.parametrize("kind", KINDS)
def test_the_reference_pipeline_generates_the_images_of_diffusers(kind: str, pipes: Pipes, tmp_path: Path) -> None:
    read = pipeline.read(pipes(kind))
    pipeline_json.write(read, "tiny", tmp_path)
    guidance = default_guidance(image_recipe(read.folder), read)
    figures = verify_images(read, Networks(read, tmp_path), guidance)
    assert figures.latent_difference < 1e-4
    assert figures.pixel_difference < 1e-4
