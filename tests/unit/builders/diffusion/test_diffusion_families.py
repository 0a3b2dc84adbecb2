"""Every pipeline family, exported for real and compared with diffusers."""

from collections.abc import Callable
from pathlib import Path

import pytest

from builders.build import build
from builders.diffusion import export_step, pipeline, pipeline_json
from builders.diffusion.networks import load_part
from builders.diffusion.parts import pipeline_parts
from builders.diffusion.triton_config import default_guidance
from builders.diffusion.verify import verify_images, verify_part
from builders.progress import NullProgress
from tests.fakes.pipelines import KINDS
from tests.unit.builders.diffusion.exported_parts import ExportedParts
from tests.unit.builders.diffusion.family_checks import check_built_family
from tests.unit.builders.diffusion.network_engines import NetworkEngines
from tests.unit.builders.diffusion.tiny_image_recipe import image_recipe

pytestmark = [pytest.mark.exports, pytest.mark.timeout(1800)]

Pipes = Callable[[str], Path]


@pytest.fixture(scope="module")
def exported_parts(tmp_path_factory: pytest.TempPathFactory) -> ExportedParts:
    return ExportedParts(tmp_path_factory.mktemp("exported"))


@pytest.mark.parametrize("kind", ["sdxl", "sd3", "flux-dev"])
def test_a_pipeline_family_is_built_with_all_parts(
    kind: str, pipes: Pipes, exported_parts: ExportedParts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_step, "export", exported_parts.export)
    check_built_family(kind, build(image_recipe(pipes(kind)), tmp_path / "repository"))


@pytest.mark.parametrize("kind", ["lcm", "sd3.5"])
def test_inputs_of_denoiser_variants_are_exported(
    kind: str, pipes: Pipes, exported_parts: ExportedParts, tmp_path: Path
) -> None:
    read = pipeline.read(pipes(kind))
    (denoiser,) = [part for part in pipeline_parts(read) if part.name == "denoiser"]
    report = exported_parts.export(read, {"denoiser": tmp_path / "1"}, NullProgress())
    figures = verify_part(read, denoiser, tmp_path / "1" / "model.onnx")
    assert report["denoiser"]["exporter"] == "dynamo"
    assert figures.difference < 1e-5 and figures.largest > 1e-2


@pytest.mark.parametrize("kind", KINDS)
def test_the_reference_pipeline_generates_the_images_of_diffusers(kind: str, pipes: Pipes, tmp_path: Path) -> None:
    read = pipeline.read(pipes(kind))
    pipeline_json.write(read, "tiny", tmp_path)
    guidance = default_guidance(image_recipe(read.folder), read)
    engines = NetworkEngines(pipeline_parts(read), lambda part: load_part(read, part), tmp_path)
    figures = verify_images(read, engines, guidance)
    assert figures.latent_difference < 1e-4
    assert figures.pixel_difference < 1e-4
