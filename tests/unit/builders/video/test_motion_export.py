"""AnimateDiff, exported for real: built of a pipeline and a motion adapter, and compared with diffusers."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

from builders import config_pbtxt
from builders.build import BuildResult, build, resolve_source
from builders.diffusion.reference_pipeline import Engines
from builders.progress import NullProgress
from builders.video import export_step, onnx_export
from builders.video.motion_parts import MOTION_PARTS
from builders.video.parts import pipeline_parts
from builders.video.pipeline import VideoPipeline
from builders.video.read_pipeline import read
from builders.video.reference_pipeline import generate_videos
from builders.video.verify import generate_with_diffusers, smallest_requests, verify_part
from tests.fakes.tiny_animatediff import MAX_FRAMES, make_base_and_adapter
from tests.unit.builders.diffusion.exported_parts import ExportedParts
from tests.unit.builders.video.tiny_video_recipe import video_recipe

pytestmark = [pytest.mark.exports, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    return " + ".join(str(folder) for folder in make_base_and_adapter(tmp_path_factory.mktemp("motion")))


@pytest.fixture(scope="module")
def joined(source: str, tmp_path_factory: pytest.TempPathFactory) -> VideoPipeline:
    recipe = video_recipe(Path("x")).model_copy(update={"source": source})
    return read(resolve_source(recipe).fetch(tmp_path_factory.mktemp("scratch"), NullProgress()).folder)


@pytest.fixture(scope="module")
def exported_parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExportedParts]:
    """The exporter of this file, which exports each network once."""
    with pytest.MonkeyPatch.context() as patch:
        parts = ExportedParts(tmp_path_factory.mktemp("exported"), pipeline_parts, onnx_export.export)
        patch.setattr(export_step, "export", parts.export)
        yield parts


@pytest.fixture(scope="module")
def built(source: str, exported_parts: ExportedParts, tmp_path_factory: pytest.TempPathFactory) -> BuildResult:
    videos = {"sizes": [[48, 32]], "max_num_frames": MAX_FRAMES, "default_num_frames": MAX_FRAMES}
    recipe = video_recipe(Path("x"), videos=videos).model_copy(update={"source": source})
    return build(recipe, tmp_path_factory.mktemp("built") / "repository")


def test_a_pipeline_and_an_adapter_are_built_together(built: BuildResult) -> None:
    assert {path.name for path in built.folder.parent.iterdir()} == {"tiny", *(f"tiny-{name}" for name in MOTION_PARTS)}
    for name in MOTION_PARTS:
        assert built.metrics[name]["exporter"] == "dynamo", built.metrics[name]
        assert built.metrics[name]["difference"] < 3e-5
        assert built.metrics[name]["largest"] > 1e-2, "zeros would be equal to anything"
        config = config_pbtxt.parse((built.folder.parent / f"tiny-{name}" / "config.pbtxt").read_text())
        graph = onnx.load(str(built.folder.parent / f"tiny-{name}" / "1" / "model.onnx")).graph
        assert [tensor.name for tensor in config.input] == [value.name for value in graph.input]
        assert [tensor.name for tensor in config.output] == [value.name for value in graph.output]
    together = built.metrics["together"]
    assert together["pixel_difference"] < 1e-4 and together["encoder_difference"] < 1e-4
    written = json.loads((built.folder / "1" / "pipeline.json").read_bytes())
    assert (written["family"], written["scheduler"]["beta_schedule"]) == ("animatediff", "linear")


@pytest.mark.parametrize("count", [1, 3])
def test_videos_at_once_are_those_of_diffusers(count: int, built: BuildResult, joined: VideoPipeline) -> None:
    engines = Engines(built.folder / "1", lambda name: built.folder.parent / name / "1" / "model.onnx")
    (request,) = smallest_requests(joined, 3.0, num_videos=count)
    ours, theirs = generate_videos(engines, request).videos, generate_with_diffusers(joined, request).videos
    assert ours.shape == theirs.shape == (count, 3, request.num_frames, request.height, request.width)
    for video in range(count):
        for frame in range(request.num_frames):
            assert np.abs(ours[video, :, frame] - theirs[video, :, frame]).max() < 1e-4
    assert theirs.std() > 0.02 and np.abs(np.diff(theirs, axis=2)).mean() > 0.01


def test_attention_is_one_operator_for_onnxruntime_alone(
    built: BuildResult, joined: VideoPipeline, exported_parts: ExportedParts, tmp_path: Path
) -> None:
    operators = [
        node.op_type for node in onnx.load(str(built.folder.parent / "tiny-denoiser" / "1" / "model.onnx")).graph.node
    ]
    assert "MultiHeadAttention" in operators and "Softmax" not in operators
    exported_parts.export(joined, {"denoiser": tmp_path / "denoiser"}, NullProgress())
    (part,) = [part for part in pipeline_parts(joined) if part.name == "denoiser"]
    figures = verify_part(joined, part, tmp_path / "denoiser" / "model.onnx")
    assert figures.difference < 3e-5 and figures.largest > 1e-2
