"""Tiny Whispers of random weights, exported for real and compared with transformers."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builders import config_pbtxt, recipe
from builders.build import BuildResult, build
from builders.errors import RecipeError, UnsupportedModel, VerificationFailed
from builders.transcription import export_process, limits, voice_activity
from builders.transcription.onnx_export import cache_names
from tests.unit.builders.tiny_whisper import MAX_POSITIONS, VOCAB_SIZE, make_whisper, write

pytestmark = pytest.mark.exports


def make(source: Path, **values: Any) -> recipe.Recipe:
    return recipe.make(
        **{"family": "transcription", "name": "tiny", "source": str(source), "precision": "fp32"} | values
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_whisper(tmp_path_factory.mktemp("whisper") / "tiny")


@pytest.fixture(autouse=True)
def _no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voice_activity, "write", lambda engine, progress: (engine / "vad.onnx").write_bytes(b"vad"))


@pytest.fixture(scope="module")
def built(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> BuildResult:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(voice_activity, "write", lambda engine, progress: (engine / "vad.onnx").write_bytes(b"vad"))
        return build(make(folder), tmp_path_factory.mktemp("built") / "repository")


def session(path: Path) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def test_fp32_writes_the_text_of_transformers(built: BuildResult) -> None:
    figures = built.metrics
    assert figures["identical_texts"] and figures["agreement"] == 1 and figures["tokens"] > 20
    assert figures["encoder_difference"] < 1e-4 and figures["divergence"] < 1e-9
    assert 0 < figures["logit_difference"] < 1e-3 and figures["alignment_difference"] < 1e-5


def test_graphs_have_the_tensors_that_the_backend_reads(built: BuildResult) -> None:
    engine = built.folder / "1"
    decoder, aligner, encoder = (session(engine / f"{name}.onnx") for name in ("decoder", "decoder_align", "encoder"))
    cross = cache_names("cross", 2)
    assert cross == ["cross_key_0", "cross_value_0", "cross_key_1", "cross_value_1"]
    assert [tensor.name for tensor in encoder.get_outputs()] == cross
    inputs = {"input_ids", "positions", "mask", *cache_names("past", 2), *cross}
    assert {tensor.name for tensor in decoder.get_inputs()} == inputs == {t.name for t in aligner.get_inputs()}
    assert [tensor.name for tensor in decoder.get_outputs()] == ["logits", *cache_names("present", 2)]
    assert [tensor.name for tensor in aligner.get_outputs()] == ["logits", "alignment"]
    assert {tensor.type for tensor in decoder.get_inputs()} == {"tensor(int64)", "tensor(float)"}
    assert decoder.get_outputs()[0].shape[1:] == [1, VOCAB_SIZE]
    # One row, and one frame pair, are batches like any other.
    (key, value, *_) = encoder.run(None, {"mel": np.zeros((1, 80, 2), np.float32)})
    assert key.shape == (1, 2, 64, 1) and value.shape == (1, 2, 1, 64)


def test_the_files_tell_the_backend_what_the_model_is(built: BuildResult) -> None:
    model = json.loads((built.folder / "1" / "model.json").read_text())
    assert (model["num_mels"], model["num_layers"], model["num_heads"], model["head_size"]) == (80, 2, 2, 64)
    assert (model["max_positions"], model["max_tokens"], model["vocab_size"]) == (MAX_POSITIONS, 96, VOCAB_SIZE)
    assert model["alignment_heads"] == [[0, 1], [1, 0]]
    assert model["languages"] == {"en": 258, "de": 259, "yue": 260}
    tokens = model["tokens"]
    assert (tokens["start_of_transcript"], tokens["previous"], tokens["no_speech"]) == (257, 264, 265)
    assert tokens["timestamp_begin"] == tokens["no_timestamps"] + 1 == 267
    assert model["suppress"] == [3, 5, 257, 261, 262, 263, 264, 265] and model["suppress_at_begin"] == [220, 256]
    assert model["multilingual"] is True and model["precision"] == "fp32"
    filters = np.load(built.folder / "1" / "mel_filters.npy")
    assert filters.shape == (80, 201) and filters.dtype == np.float32
    assert (built.folder / "1" / "vad.onnx").read_bytes() == b"vad"

    config = config_pbtxt.parse((built.folder / "config.pbtxt").read_text())
    parameters = {key: value.string_value for key, value in config.parameters.items()}
    assert (config.backend, config.max_batch_size) == ("transcription", 0)
    assert config.model_transaction_policy.decoupled
    assert json.loads(parameters["languages"]) == ["en", "de", "yue"]
    assert json.loads(parameters["tasks"]) == ["transcribe", "translate"]
    assert (parameters["sample_rate"], parameters["max_seconds"], parameters["max_rows"]) == ("16000", "600", "16")


def test_int8_is_near_transformers(
    folder: Path, built: BuildResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnx

    # The words of random weights are random too: a small difference changes all that follow it.
    monkeypatch.setitem(limits.LIMITS["int8"], "word_error", 2)
    smaller = build(make(folder, precision="int8"), tmp_path / "repository")
    assert built.metrics["divergence"] < smaller.metrics["divergence"] < 0.01
    assert built.metrics["encoder_error"] < smaller.metrics["encoder_error"] < 0.1

    def count(name: str) -> tuple[int, int, int]:
        nodes = onnx.load(str(smaller.folder / "1" / name), load_external_data=False).graph.node
        kinds = [node.op_type for node in nodes]
        return kinds.count("MatMulInteger"), kinds.count("MatMulNBits"), kinds.count("DynamicQuantizeLinear")

    # Six matrices of a layer and the cross-attentions' four; the inputs of query, key and value are quantised once.
    assert count("encoder.onnx") == (2 * 5 + 4, 2, 2 * 3 + 1)
    assert count("decoder.onnx") == count("decoder_align.onnx") == (0, 2 * 6 + 1, 0)
    assert (smaller.folder / "1" / "decoder.data").stat().st_size < (
        built.folder / "1" / "decoder.data"
    ).stat().st_size / 2


def test_other_shapes_of_whisper(tmp_path: Path) -> None:
    """As distil-whisper of large-v3: 128 mels, fewer decoder layers, the alignment heads of its teacher."""
    source = make_whisper(
        tmp_path / "distil",
        {"alignment_heads": [[7, 0]], "is_multilingual": False, "suppress_tokens": None},
        num_mel_bins=128,
        encoder_layers=3,
        encoder_attention_heads=4,
        decoder_layers=1,
    )
    built = build(make(source), tmp_path / "repository")
    model = json.loads((built.folder / "1" / "model.json").read_text())
    assert model["alignment_heads"] == [[0, 0], [0, 1]] and model["languages"] == {"en": 258}
    assert np.load(built.folder / "1" / "mel_filters.npy").shape == (128, 201)
    parameters = config_pbtxt.parse((built.folder / "config.pbtxt").read_text()).parameters
    assert json.loads(parameters["tasks"].string_value) == ["transcribe"]


def test_fp16_is_for_gpus(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnx

    monkeypatch.setitem(limits.LIMITS["fp16"], "word_error", 2)
    built = build(recipe.make(family="transcription", name="tiny", source=str(folder), device="cuda"), tmp_path / "r")
    config = config_pbtxt.parse((built.folder / "config.pbtxt").read_text())
    assert config.parameters["precision"].string_value == "fp16"
    assert config.instance_group[0].kind == config.instance_group[0].KIND_GPU
    graph = onnx.load(str(built.folder / "1" / "decoder.onnx"), load_external_data=False).graph
    float32, float16 = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
    assert {tensor.type.tensor_type.elem_type for tensor in (*graph.input, *graph.output)} == {
        float32,
        onnx.TensorProto.INT64,
    }
    assert {weight.data_type for weight in graph.initializer if len(weight.dims) == 2} == {float16}


def test_a_wrong_engine_is_not_installed(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    figures = {"tokens": 30, "identical_texts": False, "word_error": 0.5, "divergence": float("nan")}
    figures |= {"encoder_difference": 1e-4, "logit_difference": 0.1, "alignment_difference": 0.0}
    monkeypatch.setattr("builders.subprocess_step.run", lambda *arguments: figures)
    with pytest.raises(VerificationFailed, match=r"logit difference 0\.1 .*divergence nan .*the texts differ, over 30"):
        build(make(copy), tmp_path / "repository")
    assert not (tmp_path / "repository").exists() or not list((tmp_path / "repository").iterdir())


def test_changed_weights_are_noticed(built: BuildResult, folder: Path, tmp_path: Path) -> None:
    """The verification reads the engine's files, not the networks that were exported."""
    from builders.checkpoint import Checkpoint
    from builders.transcription import verify, whisper_model

    engine = shutil.copytree(built.folder / "1", tmp_path / "engine")
    data = np.fromfile(engine / "decoder.data", np.float32)
    (data * 1.01).tofile(engine / "decoder.data")
    whisper = export_process._load(str(folder), "float32")
    figures = verify.compare(whisper, whisper_model.read(Checkpoint(folder)), engine)
    with pytest.raises(VerificationFailed, match="logit difference"):
        limits.check(figures, "fp32")


@pytest.mark.parametrize(
    ("values", "error", "sentence"),
    [
        ({"precision": "int4"}, UnsupportedModel, "for cpu are built in int8 and fp32, not int4"),
        ({"precision": "int8", "device": "cuda"}, UnsupportedModel, "for cuda are built in fp16 and fp32"),
        ({"target": "vllm"}, UnsupportedModel, "not built yet"),
        ({"context_length": 64}, RecipeError, "context_length is not an option"),
        ({"max_seconds": 1}, RecipeError, "max_seconds"),
    ],
)
def test_unsupported_recipe_values_are_refused(
    folder: Path, tmp_path: Path, values: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        build(make(folder, **values), tmp_path / "repository")
    assert not (tmp_path / "repository").exists()


@pytest.mark.parametrize(
    ("file", "change", "sentence"),
    [
        ("config.json", {"model_type": "wav2vec2"}, "built from Whisper; this is a 'wav2vec2' model"),
        ("config.json", {"num_mel_bins": None}, "names no num_mel_bins"),
        ("config.json", {"activation_function": "relu"}, "another activation"),
        ("preprocessor_config.json", {"hop_length": 320}, "hop_length of this Whisper is 320"),
        ("tokenizer.json", {"added_tokens": []}, r"lacks tokens of Whisper: <\|startoftranscript\|>"),
        ("tokenizer.json", None, r"has no tokenizer\.json"),
    ],
)
def test_unsupported_checkpoints_are_refused_with_a_message(
    folder: Path, tmp_path: Path, file: str, change: dict[str, Any] | None, sentence: str
) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    if change is None:
        (copy / file).unlink()
    else:
        old = json.loads((copy / file).read_text()) if (copy / file).is_file() else {}
        write(copy / file, old | change)
    with pytest.raises(Exception, match=sentence):
        build(make(copy), tmp_path / "repository")
