"""A pipeline in fp16 for CUDA, and as TensorRT plans: exported for real, and compiled by TensorRT-RTX."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto

from builders import config_pbtxt, recipe
from builders.build import BuildResult, build
from builders.diffusion import export_step, pipeline
from builders.diffusion.networks import load_part
from builders.diffusion.parts import pipeline_parts
from builders.diffusion.verify import verify_part
from builders.errors import VerificationFailed
from builders.progress import NullProgress
from tests.unit.builders.diffusion.exported_parts import ExportedParts
from tests.unit.builders.diffusion.tiny_image_recipe import image_recipe
from tests.unit.builders.tensorrt_rtx import needs_tensorrt_rtx, use_tensorrt_rtx

pytestmark = [pytest.mark.exports, pytest.mark.timeout(1800)]

Pipes = Callable[[str], Path]
PARTS = ("text-encoder", "text-encoder-2", "text-encoder-3", "denoiser", "vae-encoder", "vae-decoder")


@pytest.fixture(scope="module")
def exported_parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExportedParts]:
    """The exporter of this file, which exports each network once."""
    with pytest.MonkeyPatch.context() as patch:
        parts = ExportedParts(tmp_path_factory.mktemp("exported"))
        patch.setattr(export_step, "export", parts.export)
        yield parts


def gpu_recipe(source: Path, **values: Any) -> recipe.Recipe:
    return image_recipe(source, **{"precision": "fp16", "device": "cuda"} | values)


@pytest.fixture(scope="module")
def built(pipes: Pipes, exported_parts: ExportedParts, tmp_path_factory: pytest.TempPathFactory) -> BuildResult:
    """Stable Diffusion 3 with its three text encoders, in fp16 for CUDA."""
    return build(gpu_recipe(pipes("sd3")), tmp_path_factory.mktemp("built") / "repository")


def test_parts_hold_fp16_and_take_and_give_float32(built: BuildResult) -> None:
    for name in PARTS:
        graph = onnx.load(str(built.folder.parent / f"tiny-{name}" / "1" / "model.onnx")).graph
        bytes_by_type = {TensorProto.FLOAT: 0, TensorProto.FLOAT16: 0}
        for tensor in graph.initializer:
            if tensor.data_type in bytes_by_type:
                bytes_by_type[tensor.data_type] += len(tensor.raw_data)
        if name != "text-encoder-3":  # transformers keeps matrices of T5 in fp32
            assert bytes_by_type[TensorProto.FLOAT16] > 50 * bytes_by_type[TensorProto.FLOAT], name
        borders = {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}
        assert borders <= {TensorProto.FLOAT, TensorProto.INT64}


def test_fp16_is_compared_with_the_source_in_both_arithmetics(built: BuildResult) -> None:
    for name in PARTS:
        assert 1e-5 < built.metrics[name]["difference"] < 5e-3, "the rounded weights"
        assert 1e-5 < built.metrics[name]["fp16_difference"] < 1e-2, "the rounded numbers of every layer"
    assert built.metrics["together"]["pixel_difference"] < 0.05


def test_an_engine_that_overflows_in_fp16_is_refused(
    built: BuildResult, pipes: Pipes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """onnxruntime would not notice: on a CPU it computes the graph in fp32."""
    read = pipeline.read(pipes("sd3"))
    decoder = pipeline_parts(read)[-1]

    def load_overflowing(read: Any, part: Any, *, half: bool = False) -> Any:
        network = load_part(read, part, half=half)
        if half:
            network.model.decoder.conv_in.register_forward_hook(lambda module, inputs, output: output * 1e5)
        return network

    monkeypatch.setattr("builders.diffusion.networks.load_part", load_overflowing)
    with pytest.raises(VerificationFailed, match=r"vae-decoder does not answer .* difference inf"):
        verify_part(read, decoder, built.folder.parent / "tiny-vae-decoder" / "1" / "model.onnx", "fp16")


@pytest.mark.parametrize("name", ["denoiser", "vae-decoder"])
def test_published_exceptions_from_fp16_are_kept(
    name: str, pipes: Pipes, exported_parts: ExportedParts, tmp_path: Path
) -> None:
    """The VAE of SDXL overflows in fp16, and its UNet adds sizes in float32."""
    read = pipeline.read(pipes("sdxl"))
    (part,) = [part for part in pipeline_parts(read) if part.name == name]
    exported_parts.export(read, {name: tmp_path / "1"}, NullProgress(), half=True)
    figures = verify_part(read, part, tmp_path / "1" / "model.onnx", "fp16")
    types = {tensor.data_type for tensor in onnx.load(str(tmp_path / "1" / "model.onnx")).graph.initializer}
    assert (TensorProto.FLOAT16 in types) == (name == "denoiser")
    assert figures.difference < (5e-3 if name == "denoiser" else 1e-5)


@needs_tensorrt_rtx
def test_plans_are_installed_in_the_place_of_onnx_files(
    pipes: Pipes, exported_parts: ExportedParts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dev").mkdir()
    use_tensorrt_rtx(monkeypatch, tmp_path / "dev")
    model = build(gpu_recipe(pipes("sd3"), target="tensorrt"), tmp_path / "repository")
    for name in PARTS:
        folder = model.folder.parent / f"tiny-{name}"
        assert [path.name for path in (folder / "1").iterdir()] == ["model.plan"]
        config = config_pbtxt.parse((folder / "config.pbtxt").read_text())
        assert (config.backend, config.platform, config.max_batch_size) == ("tensorrt", "tensorrt_plan", 16)
        assert config.instance_group[0].kind == config.instance_group[0].KIND_GPU
        assert config.HasField("dynamic_batching") and not config.HasField("optimization")
    record = json.loads((model.folder / "BUILD.json").read_bytes())
    assert record["compute_capabilities"] == [], "no GPU compiled them here"
    assert record["recipe"]["device"] == "cuda"
