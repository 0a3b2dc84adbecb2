"""Embedding models in fp16 for CUDA, and as TensorRT plans: exported for real, and compiled by TensorRT-RTX."""

import json
import warnings
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto

from builders import config_pbtxt
from builders import recipe as recipes
from builders.build import build
from builders.embedding import export_step, onnx_export
from builders.embedding.verify import MIN_COSINE
from builders.recipe import Recipe
from tests.unit.builders.tensorrt_rtx import needs_tensorrt_rtx, use_tensorrt_rtx
from tests.unit.builders.tiny_sentence_transformers import make_folder

pytestmark = [pytest.mark.exports, pytest.mark.timeout(900)]


@pytest.fixture(autouse=True)
def exporter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Export in this process, which has the libraries already."""

    def export(checkpoint: Path, recipe: Recipe, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            onnx_export.export(checkpoint, folder, recipe.precision, recipe.target == "tensorrt")

    monkeypatch.setattr(export_step, "export", export)


def operators(graph: onnx.GraphProto) -> set[str]:
    return {f"{node.domain}.{node.op_type}" for node in graph.node if node.domain}


def test_fp16_for_cuda_keeps_the_fused_attention(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "bert", dense=16, pooling={"pooling_mode_mean_tokens": True})
    values = {"family": "embedding", "name": "tiny", "source": str(source), "device": "cuda", "precision": "fp16"}
    model = build(recipes.make(**values), tmp_path / "repository")
    graph = onnx.load(str(model.folder / "1" / "model.onnx")).graph
    assert operators(graph) == {"com.microsoft.MultiHeadAttention"}
    types = (TensorProto.FLOAT, TensorProto.FLOAT16)
    matrices = [tensor for tensor in graph.initializer if len(tensor.dims) == 2 and tensor.data_type in types]
    in_float32 = [list(tensor.dims) for tensor in matrices if tensor.data_type == TensorProto.FLOAT]
    assert len(matrices) > 10 and in_float32 in ([[16, 32]], [[32, 16]]), "the dense layer after the pooling"
    assert [value.type.tensor_type.elem_type for value in graph.output] == [TensorProto.FLOAT]
    assert MIN_COSINE["fp16"] < model.metrics["fp16_cosine_min"] < 1
    assert 1e-6 < model.metrics["difference_max"] < 1e-2
    config = config_pbtxt.parse((model.folder / "config.pbtxt").read_text())
    assert config.instance_group[0].kind == config.instance_group[0].KIND_GPU
    assert config.parameters["max_batch_texts"].string_value == "64"
    assert config.parameters["arena_extend_strategy"].string_value == "1"


@needs_tensorrt_rtx
def test_the_default_model_becomes_a_plan_in_a_model_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dev").mkdir()
    use_tensorrt_rtx(monkeypatch, tmp_path / "dev")
    recipe = recipes.load(recipes.DEFAULT_EMBEDDING_RECIPE, target="tensorrt", precision="fp16", max_rows=32)
    model = build(recipe, tmp_path / "repository")
    encoder = model.folder.parent / "all-minilm-l6-v2-encoder"
    assert {path.name for path in model.folder.parent.iterdir()} == {model.folder.name, encoder.name}
    assert not list(model.folder.rglob("*.onnx")), "the ONNX file served the build alone"
    assert 40_000_000 < (encoder / "1" / "model.plan").stat().st_size < 60_000_000, "22.7 million weights in fp16"
    config = config_pbtxt.parse((encoder / "config.pbtxt").read_text())
    assert (config.backend, config.platform, config.max_batch_size) == ("tensorrt", "tensorrt_plan", 32)
    assert config.instance_group[0].kind == config.instance_group[0].KIND_GPU
    ids, lengths = config.input
    assert (ids.name, list(ids.dims), lengths.name) == ("input_ids", [-1], "lengths")
    assert lengths.HasField("reshape") and not lengths.reshape.shape
    config = config_pbtxt.parse((model.folder / "config.pbtxt").read_text())
    assert config.instance_group[0].kind == config.instance_group[0].KIND_CPU
    values = {key: value.string_value for key, value in config.parameters.items()}
    assert (values["engine"], values["encoder"], values["vocab_size"]) == ("tensorrt", encoder.name, "30522")
    assert (values["max_batch_texts"], values["dimensions"]) == ("32", "384")
    record = json.loads((model.folder / "BUILD.json").read_bytes())
    assert list(record["parts"]) == [encoder.name] and "compute_capabilities" in record
    assert model.metrics["cosine_min"] > 0.99999 and model.metrics["fp16_cosine_min"] > 0.9999
