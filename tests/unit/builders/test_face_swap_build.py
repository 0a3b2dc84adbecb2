"""The family `face_swap`: sources, face-api's weights, the files of a neural swapper, and refusals."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from builders import recipe
from builders.errors import RecipeError, SourceUnavailable, UnsupportedModel, VerificationFailed
from builders.face_swap import sources, swapper
from builders.face_swap.builder import FaceSwapBuilder
from builders.face_swap.networks import (
    LandmarkNetwork,
    OutputNetwork,
    ProposalNetwork,
    RefinementNetwork,
    load_landmarks,
)
from builders.face_swap.sources import PACKAGED, FaceSwapSource
from builders.recipe import RECIPES_FOLDER

EMAP = np.eye(512, dtype=np.float32)


def write_network(
    path: Path, inputs: dict[str, list[int]], output: list[int], *constants: Any, factor: float = 0.0
) -> None:
    """Write a network whose output is the mean of its inputs, times `factor`, plus one."""
    terms = [helper.make_node("ReduceMean", [name], [f"{name}_mean"], keepdims=0) for name in inputs]
    total = helper.make_node("Sum", [f"{name}_mean" for name in inputs], ["total"])
    scaled = helper.make_node("Mul", ["total", "factor"], ["scaled"])
    nodes = [*terms, total, scaled, helper.make_node("Add", ["ones", "scaled"], ["output"])]
    arrays = [numpy_helper.from_array(np.ones(output, np.float32), "ones")]
    arrays += [numpy_helper.from_array(np.float32(factor), "factor"), *constants]
    described = [helper.make_tensor_value_info(key, TensorProto.FLOAT, shape) for key, shape in inputs.items()]
    result = helper.make_tensor_value_info("output", TensorProto.FLOAT, output)
    graph = helper.make_graph(nodes, "network", described, [result], arrays)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with networks of inswapper's shapes; the matrix is the last constant of the swapper."""
    folder = tmp_path / "networks"
    folder.mkdir()
    write_network(folder / "embedding.onnx", {"input.1": [1, 3, 112, 112]}, [1, 512])
    inputs = {"target": [1, 3, 128, 128], "source": [1, 512]}
    write_network(folder / "swapper.onnx", inputs, [1, 3, 128, 128], numpy_helper.from_array(EMAP * 3, "emap"))
    return folder


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    (tmp_path / "engine").mkdir()
    return tmp_path / "engine"


def test_the_files_of_a_swapper_are_installed(folder: Path, engine: Path) -> None:
    swapper.install(folder, engine)
    np.testing.assert_array_equal(np.load(engine / "emap.npy"), EMAP * 3)
    assert (engine / "swapper.onnx").read_bytes() == (folder / "swapper.onnx").read_bytes()
    np.save(folder / "emap.npy", EMAP.astype(np.float64) * 5)
    swapper.install(folder, engine)
    assert np.load(engine / "emap.npy").dtype == np.float32 and np.load(engine / "emap.npy")[0, 0] == 5


def test_a_swapper_without_a_matrix_needs_none(folder: Path, engine: Path) -> None:
    write_network(folder / "swapper.onnx", {"target": [1, 3, 128, 128], "source": [1, 512]}, [1, 3, 128, 128])
    swapper.install(folder, engine)
    assert sorted(path.name for path in engine.iterdir()) == ["embedding.onnx", "swapper.onnx"]


def test_other_shapes_are_refused_by_name(folder: Path, engine: Path) -> None:
    write_network(folder / "swapper.onnx", {"target": [1, 3, 256, 256], "source": [1, 512]}, [1, 3, 256, 256])
    with pytest.raises(UnsupportedModel, match=r"swapper\.onnx has the inputs .*256"):
        swapper.install(folder, engine)
    write_network(folder / "swapper.onnx", {"image": [1, 3, 128, 128]}, [1, 3, 128, 128])
    with pytest.raises(UnsupportedModel, match=r"swapper\.onnx has the inputs"):
        swapper.install(folder, engine)
    write_network(folder / "embedding.onnx", {"input.1": [1, 3, 112, 112]}, [1, 256])
    with pytest.raises(UnsupportedModel, match=r"embedding\.onnx returns"):
        swapper.install(folder, engine)
    (folder / "embedding.onnx").write_bytes(b"no network")
    with pytest.raises(UnsupportedModel, match=r"embedding\.onnx cannot be loaded"):
        swapper.install(folder, engine)
    np.save(folder / "emap.npy", EMAP[:3])
    with pytest.raises(UnsupportedModel, match=r"emap\.npy has the shape"):
        swapper.install(folder, engine)
    np.save(folder / "emap.npy", np.array([{"code": 1}]), allow_pickle=True)
    with pytest.raises(UnsupportedModel, match=r"emap\.npy cannot be read"):
        swapper.install(folder, engine)


def test_a_network_that_returns_no_numbers_fails(folder: Path, engine: Path) -> None:
    write_network(folder / "embedding.onnx", {"input.1": [1, 3, 112, 112]}, [1, 512], factor=float("nan"))
    with pytest.raises(VerificationFailed, match="no finite numbers"):
        swapper.install(folder, engine)


def test_sources(folder: Path, tmp_path: Path) -> None:
    packaged, local = sources.resolve(PACKAGED), sources.resolve(str(folder))
    assert packaged == FaceSwapSource() and local.swapper == folder
    assert packaged.digest() != local.digest() and packaged.digest() == FaceSwapSource().digest()
    before = local.digest()
    np.save(folder / "emap.npy", EMAP)
    assert local.digest() != before
    with pytest.raises(RecipeError, match="Known: face-swap"):
        sources.resolve("packaged:inswapper")
    (folder / "swapper.onnx").unlink()
    with pytest.raises(SourceUnavailable, match=r"swapper\.onnx must be there"):
        sources.resolve(str(folder))
    with pytest.raises(SourceUnavailable, match=r"embedding\.onnx and swapper\.onnx must be there"):
        sources.resolve(str(tmp_path))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"target": "tensorrt"}, "target 'tensorrt' is not supported"),
        ({"precision": "int8"}, "are built in fp32"),
        ({"context_length": 64}, "context_length is not an option"),
    ],
)
def test_refusals_before_any_work(options: dict[str, Any], words: str) -> None:
    wanted = recipe.make(family="face_swap", name="f", source=PACKAGED, **options)
    with pytest.raises((UnsupportedModel, RecipeError), match=words):
        FaceSwapBuilder().check(wanted, FaceSwapSource())
    assert FaceSwapBuilder().check(recipe.load(str(RECIPES_FOLDER / "face-swap.toml")), FaceSwapSource()) > 0


def landmark_weights() -> list[tuple[str, tuple[int, ...]]]:
    """Return names and shapes as face-api's manifest has them."""
    found: list[tuple[str, tuple[int, ...]]] = []
    channels = [3, 32, 64, 128, 256]
    for number in range(4):
        for at in range(4):
            before = channels[number] if at == 0 else channels[number + 1]
            name, after = f"dense{number}/conv{at}", channels[number + 1]
            if number == at == 0:
                found.append((f"{name}/filters", (3, 3, 3, after)))
            else:
                found.append((f"{name}/depthwise_filter", (3, 3, before, 1)))
                found.append((f"{name}/pointwise_filter", (1, 1, before, after)))
            found.append((f"{name}/bias", (after,)))
    return [*found, ("fc/weights", (256, 136)), ("fc/bias", (136,))]


def test_quantised_weights_of_face_api_are_read(tmp_path: Path) -> None:
    """Eight bits with a scale and a minimum, or float32, one tensor after another."""
    data, wanted = b"", {}
    entries: list[dict[str, Any]] = []
    generator = np.random.default_rng(0)
    for name, shape in landmark_weights():
        if name == "fc/bias":
            values = generator.normal(size=shape).astype("<f4")
            entries.append({"name": name, "shape": list(shape), "dtype": "float32"})
            wanted[name], data = values, data + values.tobytes()
            continue
        levels = generator.integers(0, 256, shape, np.uint8)
        quantization = {"dtype": "uint8", "scale": 0.002, "min": -0.25}
        entries.append({"name": name, "shape": list(shape), "dtype": "float32", "quantization": quantization})
        wanted[name], data = levels * np.float32(0.002) + np.float32(-0.25), data + levels.tobytes()
    (tmp_path / "m.json").write_text(json.dumps([{"paths": ["w.bin"], "weights": entries}]))
    (tmp_path / "w.bin").write_bytes(data)
    network = load_landmarks(tmp_path / "m.json", tmp_path / "w.bin")
    for name, values in wanted.items():
        np.testing.assert_allclose(network.get_buffer(name.replace("/", "_")).numpy(), values)
    with torch.inference_mode():
        points = network(torch.rand((3, 3, 112, 112)) * 255)
    assert points.shape == (3, 68, 2) and points.isfinite().all()
    (tmp_path / "w.bin").write_bytes(data + b"\0")
    with pytest.raises(ValueError, match=f"has {len(data) + 1} bytes"):
        load_landmarks(tmp_path / "m.json", tmp_path / "w.bin")


def test_the_cascade_has_the_published_shapes() -> None:
    with torch.inference_mode():
        scores, shifts = ProposalNetwork()(torch.rand((1, 3, 40, 60)))
        assert scores.shape[1:] == shifts.shape[2:] == (15, 25) and shifts.shape[1] == 4
        assert [tuple(each.shape) for each in RefinementNetwork()(torch.rand((2, 3, 24, 24)))] == [(2,), (2, 4)]
        outputs = OutputNetwork()(torch.rand((2, 3, 48, 48)))
    assert [tuple(each.shape) for each in outputs] == [(2,), (2, 4), (2, 10)]
    assert sum(each.numel() for each in LandmarkNetwork({}).buffers()) == 3
