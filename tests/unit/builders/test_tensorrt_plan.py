"""The real builder code through TensorRT-RTX: what it compiles, and what it refuses."""

from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from builders import recipe, tensorrt_plan
from builders.diffusion import pipeline, tensorrt
from builders.diffusion.parts import pipeline_parts
from builders.diffusion.sources import resolve
from builders.errors import ExportFailed
from builders.progress import NullProgress
from tests.unit.builders.tensorrt_rtx import needs_tensorrt_rtx, use_tensorrt_rtx

pytestmark = [pytest.mark.exports, needs_tensorrt_rtx]

REPOSITORY = Path(__file__).parents[3] / "model_repository"


@pytest.fixture(autouse=True)
def rtx(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    use_tensorrt_rtx(monkeypatch, tmp_path_factory.mktemp("dev"))
    yield


def write_graph(path: Path, *nodes: onnx.NodeProto) -> Path:
    """Write a graph from x [batch, 4] to y of the same shape."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1), helper.make_opsetid("odd", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), str(path))
    return path


RELU = helper.make_node("Relu", ["x"], ["y"])
PROFILE: tensorrt_plan.Profile = {"x": ((1, 4), (2, 4), (8, 4))}


def test_a_graph_becomes_a_plan_that_is_written_to_its_folder(tmp_path: Path) -> None:
    tensorrt_plan.check()
    plan = tmp_path / "model" / "1" / tensorrt_plan.FILE_NAME
    tensorrt_plan.build("network", write_graph(tmp_path / "relu.onnx", RELU), plan, PROFILE)
    assert plan.stat().st_size > 1000


def test_an_unknown_operator_is_named(tmp_path: Path) -> None:
    path = write_graph(tmp_path / "odd.onnx", helper.make_node("Folding", ["x"], ["y"], domain="odd"))
    with pytest.raises(ExportFailed, match=r"cannot read the exported network: .*operator: Folding"):
        tensorrt_plan.build("network", path, tmp_path / "model.plan", PROFILE)
    assert not (tmp_path / "model.plan").exists()


def test_the_attention_of_onnxruntime_is_refused(tmp_path: Path) -> None:
    """So embedding models are exported without it for TensorRT."""
    states = [helper.make_node("Unsqueeze", ["x", "axis"], [name]) for name in ("query", "key", "value")]
    axis = helper.make_node("Constant", [], ["axis"], value_ints=[1])
    lengths = helper.make_node("Constant", [], ["lengths"], value=helper.make_tensor("", TensorProto.INT32, [1], [1]))
    attention = helper.make_node(
        "MultiHeadAttention",
        ["query", "key", "value", "", "lengths"],
        ["mixed"],
        domain="com.microsoft",
        num_heads=2,
    )
    path = write_graph(
        tmp_path / "attention.onnx",
        axis,
        lengths,
        *states,
        attention,
        helper.make_node("Squeeze", ["mixed", "axis"], ["y"]),
    )
    with pytest.raises(ExportFailed, match="MultiHeadAttention key_padding_mask input is not supported"):
        tensorrt_plan.build("network", path, tmp_path / "model.plan", PROFILE)


@pytest.mark.parametrize(
    ("profile", "reason"),
    [
        ({}, "input tensor x is missing dimensions in profile"),
        ({"z": ((1, 4), (2, 4), (8, 4))}, "input tensor x is missing dimensions in profile"),
        ({"x": ((4, 4), (2, 4), (8, 4))}, "MIN<=OPT<=MAX"),
        ({"x": ((1, 3), (2, 3), (8, 3))}, "At dimension axis 1, profile has min=3, .* but tensor has 4"),
        ({"x": ((1,), (2,), (8,))}, "tensor x has 2 dimensions but profile 0 has 1 dimensions"),
    ],
    ids=["missing", "another input", "minimum above optimum", "another fixed size", "another number of dimensions"],
)
def test_a_wrong_profile_is_refused_with_tensorrts_reason(
    tmp_path: Path, profile: tensorrt_plan.Profile, reason: str
) -> None:
    path = write_graph(tmp_path / "relu.onnx", RELU)
    with pytest.raises(ExportFailed, match=f"TensorRT cannot build a plan of network.*{reason}"):
        tensorrt_plan.build("network", path, tmp_path / "model.plan", profile)
    assert not (tmp_path / "model.plan").exists()


def test_every_part_of_the_default_image_model_becomes_a_plan(tmp_path: Path) -> None:
    """Its parts in fp32, as they are installed: UNet, CLIP and both halves of the VAE, with the weights of training."""
    read = pipeline.read(resolve("packaged:shapes").fetch(tmp_path, NullProgress()).folder)
    sizes = tensorrt.plan_sizes(recipe.load("shapes", target="tensorrt"), read)
    for part in pipeline_parts(read):
        onnx_file = REPOSITORY / f"shapes-{part.name}" / "1" / "model.onnx"
        if not onnx_file.is_file():
            pytest.skip("The default image model is not built: tritonic build image")
        plan = tensorrt_plan.compile_by_python(part.name, onnx_file, sizes.profile(part))
        assert len(plan) > onnx_file.stat().st_size / 2, "the weights are in the plan"
