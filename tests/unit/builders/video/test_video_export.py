"""Wan pipelines, exported for real: built whole, compared with diffusers, and compiled by TensorRT-RTX."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from builders import config_pbtxt
from builders.build import BuildResult, build
from builders.diffusion.reference_pipeline import Engines
from builders.progress import NullProgress
from builders.video import export_step, onnx_export, pipeline
from builders.video.parts import pipeline_parts
from builders.video.reference_pipeline import generate_videos
from builders.video.verify import generate_with_diffusers, smallest_requests, verify_part
from tests.unit.builders.diffusion.exported_parts import ExportedParts
from tests.unit.builders.tensorrt_rtx import needs_tensorrt_rtx, use_tensorrt_rtx
from tests.unit.builders.video.tiny_video_recipe import video_recipe

pytestmark = [pytest.mark.exports, pytest.mark.timeout(1800)]

Wan = Callable[[str], Path]
PARTS = (
    "text-encoder",
    "denoiser",
    "vae-encoder-first",
    "vae-encoder-next",
    "vae-decoder-first",
    "vae-decoder-next",
)


@pytest.fixture(scope="module")
def exported_parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExportedParts]:
    """The exporter of this file, which exports each network once."""
    with pytest.MonkeyPatch.context() as patch:
        parts = ExportedParts(tmp_path_factory.mktemp("exported"), pipeline_parts, onnx_export.export)
        patch.setattr(export_step, "export", parts.export)
        yield parts


@pytest.fixture(scope="module")
def built(wan: Wan, exported_parts: ExportedParts, tmp_path_factory: pytest.TempPathFactory) -> BuildResult:
    return build(video_recipe(wan("ti2v-small")), tmp_path_factory.mktemp("built") / "repository")


def engines_of(model: BuildResult) -> Engines:
    return Engines(model.folder / "1", lambda name: model.folder.parent / name / "1" / "model.onnx")


def test_a_pipeline_is_built_with_all_parts(built: BuildResult) -> None:
    assert {path.name for path in built.folder.parent.iterdir()} == {"tiny", *(f"tiny-{name}" for name in PARTS)}
    assert set(built.metrics) == {*PARTS, "together"}
    for name in PARTS:
        assert built.metrics[name]["exporter"] == "dynamo", built.metrics[name]
        assert built.metrics[name]["difference"] < 3e-5
        assert built.metrics[name]["largest"] > 1e-2, "zeros would be equal to anything"
    together = built.metrics["together"]
    assert (together["videos"], together["frames"]) == (2, 9), "one from text, one from a picture"
    assert together["pixel_difference"] < 1e-4 and together["latent_difference"] < 1e-4
    assert together["encoder_difference"] < 1e-4
    written = json.loads((built.folder / "1" / "pipeline.json").read_bytes())
    assert (written["family"], written["image_conditioning"], written["expand_timesteps"]) == (
        "wan",
        "first-frame",
        True,
    )
    for name in PARTS:
        config = config_pbtxt.parse((built.folder.parent / f"tiny-{name}" / "config.pbtxt").read_text())
        graph = onnx.load(str(built.folder.parent / f"tiny-{name}" / "1" / "model.onnx")).graph
        assert [tensor.name for tensor in config.input] == [value.name for value in graph.input]
        assert [tensor.name for tensor in config.output] == [value.name for value in graph.output]


def test_three_videos_at_once_are_those_of_diffusers(built: BuildResult, wan: Wan) -> None:
    read, engines = pipeline.read(wan("ti2v-small")), engines_of(built)
    for request in smallest_requests(read, 3.0, num_videos=3):
        ours, theirs = generate_videos(engines, request).videos, generate_with_diffusers(read, request).videos
        for video in range(3):
            for frame in range(request.num_frames):
                assert np.abs(ours[video, :, frame] - theirs[video, :, frame]).max() < 1e-4
        assert np.abs(ours[0] - ours[1]).max() > 0.1, "each video has its own noise"


def test_attention_is_one_operator_of_onnxruntime(built: BuildResult) -> None:
    """Separate products would need memory for all pairs of patches: 50 GB for a video of the published size."""
    graph = onnx.load(str(built.folder.parent / "tiny-denoiser" / "1" / "model.onnx")).graph
    operators = [node.op_type for node in graph.node]
    assert operators.count("MultiHeadAttention") == 2 * 2, "two in each of two blocks"
    assert "Softmax" not in operators


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("t2v", ("denoiser",)),
        ("i2v", ("image-encoder", "denoiser")),
        ("ti2v", ("denoiser", "vae-encoder-first", "vae-encoder-next", "vae-decoder-first", "vae-decoder-next")),
    ],
)
def test_parts_of_other_pipelines_are_exported(
    kind: str, names: tuple[str, ...], wan: Wan, exported_parts: ExportedParts, tmp_path: Path
) -> None:
    read = pipeline.read(wan(kind))
    report = exported_parts.export(read, {name: tmp_path / name for name in names}, NullProgress(), fused=True)
    for part in [part for part in pipeline_parts(read) if part.name in names]:
        figures = verify_part(read, part, tmp_path / part.name / "model.onnx")
        assert report[part.name] == {"exporter": "dynamo"}
        assert figures.difference < 3e-5 and figures.largest > 1e-2


def test_a_gpu_gets_fp16_but_for_the_vae(wan: Wan, exported_parts: ExportedParts, tmp_path: Path) -> None:
    read = pipeline.read(wan("ti2v-small"))
    names = ("denoiser", "text-encoder", "vae-decoder-first")
    outputs = {name: tmp_path / name for name in names}
    exported_parts.export(read, outputs, NullProgress(), half=True, fused=True)
    for part in [part for part in pipeline_parts(read) if part.name in names]:
        graph = onnx.load(str(outputs[part.name] / "model.onnx")).graph
        assert (TensorProto.FLOAT16 in {tensor.data_type for tensor in graph.initializer}) == (part.component != "vae")
        borders = {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}
        assert borders <= {TensorProto.FLOAT, TensorProto.INT64}
        figures = verify_part(read, part, outputs[part.name] / "model.onnx", "fp16")
        assert figures.difference < (1e-5 if part.component == "vae" else 1e-2)


@needs_tensorrt_rtx
def test_plans_are_installed_in_the_place_of_onnx_files(
    wan: Wan, exported_parts: ExportedParts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dev").mkdir()
    use_tensorrt_rtx(monkeypatch, tmp_path / "dev")
    values: dict[str, Any] = {"target": "tensorrt", "precision": "fp16"}
    model = build(video_recipe(wan("ti2v-small"), **values), tmp_path / "repository")
    for name in PARTS:
        folder = model.folder.parent / f"tiny-{name}"
        assert [path.name for path in (folder / "1").iterdir()] == ["model.plan"]
        config = config_pbtxt.parse((folder / "config.pbtxt").read_text())
        assert (config.backend, config.platform) == ("tensorrt", "tensorrt_plan")
