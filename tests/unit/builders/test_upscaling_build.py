"""Upscaling models: kinds of weights, what is built of them, and refusals. The networks are tiny and random."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import save_file

from builders import config_pbtxt, recipe
from builders.build import build
from builders.errors import ExportFailed, RecipeError, SourceUnavailable, UnsupportedModel, VerificationFailed
from builders.progress import NullProgress
from builders.upscaling import ncnn, onnx_export, sources, triton_config, verify, weights
from builders.upscaling.architectures import Compact, Rrdb, recognize
from builders.upscaling.family import UpscalingRecipe
from builders.upscaling.networks import CompactNetwork, RrdbNetwork
from builders.upscaling.packages import PACKAGED_UPSCALERS

COMPACT, RRDB = Compact(8, 2, 4), Rrdb(8, 4, 1)


def random_weights(shape: Compact | Rrdb, seed: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    network = CompactNetwork(shape) if isinstance(shape, Compact) else RrdbNetwork(shape)
    return dict(network.state_dict())


def make(source: Path | str, **values: Any) -> recipe.Recipe:
    return recipe.make(**{"family": "upscaling", "name": "larger", "source": str(source)} | values)


def parameters_of(folder: Path) -> dict[str, str]:
    config = config_pbtxt.parse((folder / "config.pbtxt").read_text())
    return {key: value.string_value for key, value in config.parameters.items()}


def shapes_of(tensors: dict[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def write_ncnn(folder: Path, tensors: dict[str, torch.Tensor], rrdb: bool, half: bool) -> Path:
    """Write weights as ncnn does. Of the graph, the layers matter that have weights or that are counted."""
    lines: list[str] = []
    numbers = b""
    for name, tensor in tensors.items():
        if tensor.ndim == 4:
            lines.append(f"Convolution c{len(lines)} 1 1 a b 0={tensor.shape[0]} 1=3 4=1 5=1 6={tensor.numel()}")
            raw = tensor.numpy().astype("<f2" if half else "<f4").tobytes()
            numbers += struct.pack("<I", 0x01306B47 if half else 0) + raw + bytes(-len(raw) % 4)
        elif name.endswith(".bias"):
            numbers += tensor.numpy().tobytes()
        else:
            lines.append(f"PReLU p{len(lines)} 1 1 a b 0={len(tensor)}")
            numbers += tensor.numpy().tobytes()
    lines += ["Concat x 2 1 a b c"] * 12 + ["Interp i 1 1 a b 0=1"] * 2 if rrdb else ["PixelShuffle s 1 1 a b 0=4"]
    path = folder / "net.param"
    path.write_text("\n".join(["7767517", f"{len(lines)} 9", *lines]) + "\n")
    path.with_suffix(".bin").write_bytes(numbers)
    return path


@pytest.mark.parametrize("half", [True, False], ids=["fp16", "fp32"])
@pytest.mark.parametrize("shape", [COMPACT, RRDB], ids=["compact", "rrdb"])
def test_the_files_of_ncnn(tmp_path: Path, shape: Compact | Rrdb, half: bool) -> None:
    tensors = random_weights(shape)
    found = weights.read(write_ncnn(tmp_path, tensors, shape is RRDB, half))
    assert recognize(shapes_of(found)) == shape and list(found) == list(tensors)
    for name, tensor in tensors.items():
        expected = tensor.half().float() if half and tensor.ndim == 4 else tensor
        assert torch.equal(found[name], expected), name


def test_damaged_files_of_ncnn(tmp_path: Path) -> None:
    path = write_ncnn(tmp_path, random_weights(COMPACT), rrdb=False, half=True)
    numbers = path.with_suffix(".bin")
    good, graph = numbers.read_bytes(), path.read_text()
    for data, words in (
        (good[:-1], "cut off"),
        (good + b"\0", "1 bytes too many"),
        (b"\1" + good[1:], "unknown format"),
    ):
        numbers.write_bytes(data)
        with pytest.raises(UnsupportedModel, match=words):
            ncnn.read(path, numbers)
    numbers.write_bytes(good)
    for text in (graph.replace("7767517", "1"), graph.replace("PixelShuffle", "Reshape"), graph.replace("1=3", "1=5")):
        path.write_text(text)
        with pytest.raises(UnsupportedModel):
            ncnn.read(path, numbers)


def test_a_compact_network_of_pytorch_is_built(tmp_path: Path) -> None:
    """The built network upscales as the published architecture does, written down once more here."""
    tensors = random_weights(COMPACT)
    torch.save({"params": random_weights(COMPACT, 1), "params_ema": tensors}, tmp_path / "net.pth")
    built = build(make(tmp_path / "net.pth", max_pixels=5000), tmp_path / "repository")
    assert built.metrics["difference_max"] < 1e-5 and built.metrics["scales"] == (2, 4)
    parameters = parameters_of(built.folder)
    assert {name: json.loads(parameters[name]) for name in ("scales", "operations", "network_scale", "max_pixels")} == {
        "scales": [2, 4], "operations": ["upscale_image"], "network_scale": 4, "max_pixels": 5000,
    }  # fmt: skip
    assert [parameters[name] for name in ("signature", "tile", "overlap", "feather")] == ["upscaling", "256", "4", "0"]

    picture = torch.rand(1, 3, 9, 7)
    found = picture
    for number in range(7):
        weight = tensors[f"body.{number}.weight"]
        if number % 2:
            found = torch.where(found > 0, found, found * weight[:, None, None])
        else:
            found = torch.nn.functional.conv2d(found, weight, tensors[f"body.{number}.bias"], padding=1)
    found = found.reshape(1, 3, 4, 4, 9, 7).permute(0, 1, 4, 2, 5, 3).reshape(1, 3, 36, 28)
    expected = found + picture.repeat_interleave(4, 2).repeat_interleave(4, 3)
    session = onnxruntime.InferenceSession(str(built.folder / "1" / "model.onnx"))
    (made,) = session.run(["upscaled"], {"image": picture.numpy()})
    assert np.abs(made - expected.numpy()).max() < 1e-5


def test_an_rrdb_network_of_safetensors_for_a_gpu(tmp_path: Path) -> None:
    save_file(random_weights(RRDB), tmp_path / "net.safetensors")
    made = make(tmp_path, device="cuda", precision="fp16", overlap=8)
    built = build(made, tmp_path / "repository")
    assert 0 < built.metrics["difference_max"] < 0.03
    parameters = parameters_of(built.folder)
    assert [parameters[name] for name in ("tile", "overlap", "feather", "max_rows")] == ["128", "8", "4", "4"]
    config = config_pbtxt.parse((built.folder / "config.pbtxt").read_text())
    assert config.instance_group[0].kind == config.instance_group[0].KIND_GPU
    assert {tensor.name: tensor.optional for tensor in config.input} == {
        "image": False, "scale": True, "output_format": True, "quality": True,
    }  # fmt: skip
    assert not build(made, tmp_path / "repository").is_new


def test_an_onnx_file_is_copied_under_our_names(tmp_path: Path) -> None:
    save_file(random_weights(COMPACT), tmp_path / "net.safetensors")
    onnx_export.export(str(tmp_path / "net.safetensors"), str(tmp_path / "ours.onnx"))
    import onnx

    model = onnx.load(tmp_path / "ours.onnx")
    onnx_export._rename(model.graph, {"image": "input.1", "upscaled": "1859"})
    onnx.save(model, tmp_path / "theirs.onnx")
    built = build(make(tmp_path / "theirs.onnx"), tmp_path / "repository")
    assert built.metrics["difference_max"] == 0
    session = onnxruntime.InferenceSession(str(built.folder / "1" / "model.onnx"))
    assert [each.name for each in (*session.get_inputs(), *session.get_outputs())] == ["image", "upscaled"]
    parameters = parameters_of(built.folder)
    assert [parameters[name] for name in ("network_scale", "overlap", "feather")] == ["4", "32", "16"]
    with pytest.raises(UnsupportedModel, match="not converted"):
        build(make(tmp_path / "theirs.onnx", device="cuda", precision="fp16"), tmp_path / "other")
    (tmp_path / "noise.onnx").write_bytes(b"noise")
    with pytest.raises(ExportFailed, match="no network that upscales"):
        build(make(tmp_path / "noise.onnx"), tmp_path / "other")


def test_refusals(tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(UnsupportedModel, match="neither those of RRDBNet"):
        build(make(tmp_path / "other.pth"), tmp_path / "repository")
    (tmp_path / "code.pth").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(SourceUnavailable, match="cannot be read"):
        build(make(tmp_path / "code.pth"), tmp_path / "repository")
    with pytest.raises(SourceUnavailable, match="several files of weights"):
        sources.resolve(str(tmp_path))
    with pytest.raises(RecipeError, match="no packaged upscaler 'other'"):
        sources.resolve("packaged:other")
    with pytest.raises(SourceUnavailable, match="on the Hugging Face hub either"):
        sources.resolve("owner/name")
    hub = sources.resolve("owner/name/weights/net.pth")
    assert isinstance(hub, sources.HubUpscalingSource) and (hub.id, hub.file) == ("owner/name", "weights/net.pth")
    tensors = random_weights(RRDB) | {"conv_first.weight": torch.zeros(8, 12, 3, 3)}
    with pytest.raises(UnsupportedModel, match="12 channels"):
        recognize(shapes_of(tensors))
    for values, words in (
        ({"precision": "fp16"}, "--device cuda"),
        ({"precision": "int8"}, "fp32"),
        ({"target": "vllm"}, "onnx, tensorrt"),
        ({"context_length": 32}, "context_length"),
    ):
        with pytest.raises((UnsupportedModel, RecipeError), match=words):
            build(make("packaged:realesrgan-animevideov3", **values), tmp_path / "repository")


def test_another_network_is_not_installed(tmp_path: Path) -> None:
    for seed in (0, 1):
        save_file(random_weights(COMPACT, seed), tmp_path / f"{seed}.safetensors")
    onnx_export.export(str(tmp_path / "0.safetensors"), str(tmp_path / "model.onnx"))
    theirs = verify.torch_reference(tmp_path / "1.safetensors")
    with pytest.raises(VerificationFailed, match="nothing was installed"):
        verify.verify(tmp_path / "model.onnx", theirs, 4, [2, 4], "fp32", NullProgress())


def test_a_plan_takes_windows_of_all_sizes() -> None:
    planned = make("packaged:realesrgan-x4plus", target="tensorrt")
    assert isinstance(planned, UpscalingRecipe)
    tiling = triton_config.choose_tiling(planned, 4, Rrdb.tile, Rrdb(64, 32, 23).radius)
    assert (tiling.tile, tiling.overlap, tiling.feather, tiling.scales) == (128, 32, 16, [2, 4])
    ((least, _, most),) = triton_config.plan_profile(planned, tiling).values()
    assert (least, most) == ((1, 3, 1, 1), (4, 3, 192, 192))
    network = config_pbtxt.parse(triton_config.render_network(planned))
    assert (network.name, network.max_batch_size) == ("larger-network", 4)
    model = config_pbtxt.parse(triton_config.render_model(planned, tiling))
    assert model.parameters["network"].string_value == network.name
    assert model.parameters["engine"].string_value == "tensorrt"


def test_the_recipes_name_packaged_networks() -> None:
    for name in ("realesrgan-animevideov3", "realesrgan-x4plus"):
        found = recipe.load(name)
        assert (found.family, found.source) == ("upscaling", f"packaged:{name}") and name in PACKAGED_UPSCALERS
