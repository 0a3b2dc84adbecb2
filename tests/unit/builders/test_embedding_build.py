"""Sentence-transformers folders, exported for real and compared with sentence-transformers."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.embedding.encoder import OrtEncoder
from builders import config_pbtxt, recipe
from builders.build import BuildResult, build
from builders.checkpoint import Checkpoint
from builders.embedding import sentence_model
from builders.embedding.verify import TEXTS, verify
from builders.errors import RecipeError, SourceUnavailable, UnsupportedModel, VerificationFailed
from builders.progress import NullProgress
from tests.unit.builders.tiny_sentence_transformers import MAX_POSITIONS, make_folder, write

pytestmark = pytest.mark.exports

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "bert": {"pooling": {"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True}, "dense": 16},
    "xlm-roberta": {"pooling": {"pooling_mode_cls_token": True}, "normalize": False},
    "mpnet": {"pooling": {"pooling_mode_mean_sqrt_len_tokens": True}},
    "modernbert": {"pooling": {"pooling_mode_weightedmean_tokens": True}},
    "qwen3": {"pooling": {"pooling_mode_lasttoken": True}},
}
FUSED = {"bert": 2, "xlm-roberta": 2, "mpnet": 0, "modernbert": 2, "qwen3": 2}
"""Number of fused attention nodes. MPNet's attention adds positions in its own way and is not fused."""


def make(source: Path, **values: Any) -> recipe.Recipe:
    return recipe.make(**{"family": "embedding", "name": "tiny", "source": str(source)} | values)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prompts = {"prompts": {"query": "ask: ", "passage": "tell: "}, "default_prompt_name": "query"}
    return make_folder(tmp_path_factory.mktemp("sentences") / "tiny", "bert", prompts=prompts)


@pytest.fixture(scope="module")
def built(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> BuildResult:
    return build(make(folder), tmp_path_factory.mktemp("built") / "repository")


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_embeddings_are_those_of_sentence_transformers(kind: str, tmp_path: Path) -> None:
    import onnx
    from sentence_transformers import SentenceTransformer
    from tokenizers import Tokenizer

    source = make_folder(tmp_path / kind, kind, **ARCHITECTURES[kind])
    model = build(make(source), tmp_path / "repository")
    assert model.metrics["longest"] == MAX_POSITIONS
    assert model.metrics["difference_max"] < 1e-5
    nodes = [node.op_type for node in onnx.load(str(model.folder / "1" / "model.onnx")).graph.node]
    assert nodes.count("MultiHeadAttention") == FUSED[kind]

    reference = SentenceTransformer(str(source), device="cpu")
    tokenizer = Tokenizer.from_file(str(model.folder / "1" / "tokenizer.json"))
    tokenizer.enable_truncation(MAX_POSITIONS)
    tokens = [np.array(encoding.ids, np.int64) for encoding in tokenizer.encode_batch(list(TEXTS))]
    expected = reference.encode(list(TEXTS))
    assert np.abs(OrtEncoder(model.folder / "1").embed(tokens) - expected).max() < 1e-4 * max(
        1.0, np.abs(expected).max()
    )


def test_config_pbtxt_has_the_settings_of_the_folder(built: BuildResult) -> None:
    config = config_pbtxt.parse((built.folder / "config.pbtxt").read_text())
    parameters = {key: value.string_value for key, value in config.parameters.items()}
    assert json.loads(parameters["operations"]) == ["embed"]
    assert (parameters["signature"], parameters["dimensions"]) == ("embedding", "32")
    assert (parameters["context_length"], parameters["precision"]) == (str(MAX_POSITIONS), "fp32")
    assert json.loads(parameters["prompts"]) == {"query": "ask: ", "passage": "tell: "}
    assert (parameters["default_prompt"], parameters["normalized"]) == ("query", "true")
    assert "matryoshka" not in parameters
    assert (config.backend, config.max_batch_size) == ("embedding", 0)
    assert config.model_transaction_policy.decoupled


def test_int8_embeddings_are_close_in_cosine(folder: Path, built: BuildResult, tmp_path: Path) -> None:
    smaller = build(make(folder, precision="int8", matryoshka=[8, 16]), tmp_path / "repository")
    assert 0.999 < smaller.metrics["cosine_min"] < built.metrics["cosine_min"]
    parameters = config_pbtxt.parse((smaller.folder / "config.pbtxt").read_text()).parameters
    assert parameters["matryoshka"].string_value == "[8, 16]"


def test_a_wrong_engine_is_not_installed(folder: Path, built: BuildResult, tmp_path: Path) -> None:
    import onnx
    from onnx import numpy_helper

    engine = shutil.copytree(built.folder / "1", tmp_path / "engine")
    graph = onnx.load(str(engine / "model.onnx"))
    weight = max(graph.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * 1.01, weight.name))
    onnx.save(graph, str(engine / "model.onnx"))
    model = sentence_model.read(Checkpoint(folder))
    with pytest.raises(VerificationFailed, match="Largest difference of a number"):
        verify(model, engine, MAX_POSITIONS, "fp32", NullProgress())


@pytest.mark.parametrize(
    ("file", "change", "sentence"),
    [
        ("modules.json", None, "has no modules.json"),
        ("tokenizer.json", None, "has no tokenizer.json, which the backend reads"),
        ("1_Pooling/config.json", {"pooling_mode": "attention"}, "pooling 'attention' is not known"),
        ("1_Pooling/config.json", {"include_prompt": False}, "leaves its prompts out"),
        ("config_sentence_transformers.json", {"default_prompt_name": "x"}, "no such prompt"),
    ],
)
def test_unsupported_models_are_refused_with_a_message(
    folder: Path, tmp_path: Path, file: str, change: dict[str, Any] | None, sentence: str
) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    if change is None:
        (copy / file).unlink()
    else:
        write(copy / file, json.loads((copy / file).read_text()) | change)
    with pytest.raises((SourceUnavailable, UnsupportedModel), match=sentence):
        build(make(copy), tmp_path / "repository")
    assert not (tmp_path / "repository").exists()


def test_other_modules_are_refused_by_name(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    modules = json.loads((copy / "modules.json").read_text())
    (copy / "2_LSTM").mkdir()
    modules[2] |= {"path": "2_LSTM", "type": "sentence_transformers.models.LSTM"}
    (copy / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(UnsupportedModel, match="Transformer, Pooling, LSTM"):
        sentence_model.read(Checkpoint(copy))
    modules[2]["path"] = "../elsewhere"
    (copy / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(SourceUnavailable, match="outside the model"):
        sentence_model.read(Checkpoint(copy))


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"precision": "int4"}, UnsupportedModel),
        ({"target": "vllm"}, UnsupportedModel),
        ({"context_length": MAX_POSITIONS + 1}, RecipeError),
        ({"tool_call_parser": "hermes"}, RecipeError),
    ],
)
def test_unsupported_recipe_values_are_refused(
    folder: Path, tmp_path: Path, values: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        build(make(folder, **values), tmp_path / "repository")
    assert not (tmp_path / "repository").exists()


def test_positions_are_counted_as_the_architecture_does(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "xlm", "xlm-roberta")
    assert json.loads((source / "config.json").read_text())["max_position_embeddings"] == MAX_POSITIONS + 2
    assert sentence_model.read(Checkpoint(source)).max_positions == MAX_POSITIONS


def test_the_digest_covers_the_modules(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert Checkpoint(copy).digest() == Checkpoint(folder).digest()
    write(copy / "1_Pooling" / "config.json", {"pooling_mode_cls_token": True})
    assert Checkpoint(copy).digest() != Checkpoint(folder).digest()
