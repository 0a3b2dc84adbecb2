"""Whispers inside packages: their files, and the conversion from CTranslate2's format."""

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builders import packaged_files, recipe, sources
from builders.errors import SourceUnavailable, UnsupportedModel
from builders.packaged_files import PackagedFile, WheelPart
from builders.packaged_whisper import PACKAGED_WHISPERS, PackagedWhisperSource
from builders.progress import NullProgress
from builders.transcription import ct2_checkpoint, recording, whisper_model
from builders.transcription.text_distance import kullback_leibler, word_errors
from tests.unit.builders.tiny_whisper import ct2_tensors, make_whisper, write, write_ct2


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_whisper(tmp_path_factory.mktemp("ct2") / "source")


@pytest.fixture
def files(source: Path, tmp_path: Path) -> tuple[Path, Path, Path]:
    """`model.bin`, `config.json` and `tokenizer.json`, as CTranslate2 writes them."""
    tensors = ct2_tensors(source)
    write_ct2(tmp_path / "model.bin", tensors, {"decoder/projection/weight": "decoder/embeddings/weight"})
    settings = {"alignment_heads": [[1, 1]], "suppress_ids": [3], "suppress_ids_begin": [220], "lang_ids": [258, 259]}
    write(tmp_path / "config.json", settings)
    return tmp_path / "model.bin", tmp_path / "config.json", source / "tokenizer.json"


def test_the_conversion_keeps_every_number(source: Path, files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    ct2_checkpoint.convert(*files, tmp_path / "converted")
    original = load_file(source / "model.safetensors")
    converted = load_file(tmp_path / "converted" / "model.safetensors")
    assert set(converted) == set(original)
    for name, array in converted.items():
        assert array.dtype == np.float16 and np.array_equal(array, original[name].astype(np.float16)), name


def test_the_converted_configuration_is_that_of_the_source(
    source: Path, files: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    from builders.checkpoint import Checkpoint

    ct2_checkpoint.convert(*files, tmp_path / "converted")
    original, converted = (
        json.loads((folder / "config.json").read_text()) for folder in (source, tmp_path / "converted")
    )
    heads = ("encoder_attention_heads", "decoder_attention_heads", "dtype")
    assert {name: converted[name] for name in converted if name not in heads} == {
        name: original[name] for name in converted if name not in heads
    }
    assert converted["decoder_attention_heads"] == 2
    # The vocabulary is too small for a multilingual Whisper.
    model = whisper_model.read(Checkpoint(tmp_path / "converted"))
    assert model.alignment_heads == [(1, 1)] and not model.multilingual and 3 in model.suppress


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        (lambda data: data[:-1], SourceUnavailable, "not a readable CTranslate2 model"),
        (lambda data: data[:5000], SourceUnavailable, "not a readable CTranslate2 model"),
        (lambda data: data + b"x", SourceUnavailable, "more after the last tensor"),
        (lambda data: b"\x05" + data[1:], UnsupportedModel, "in format 5; only"),
        (lambda data: data.replace(b"WhisperSpec", b"WhisperSpac"), UnsupportedModel, "WhisperSpac"),
    ],
)
def test_damaged_and_foreign_files_are_refused(
    files: tuple[Path, Path, Path], tmp_path: Path, change: Any, error: type[Exception], sentence: str
) -> None:
    files[0].write_bytes(change(files[0].read_bytes()))
    with pytest.raises(error, match=sentence):
        ct2_checkpoint.convert(*files, tmp_path / "converted")


def test_quantised_weights_are_refused(tmp_path: Path) -> None:
    write_ct2(tmp_path / "model.bin", {"encoder/conv1/weight": np.zeros((2, 2), np.int8)}, {})
    with pytest.raises(UnsupportedModel, match="quantised"):
        ct2_checkpoint.read_weights(tmp_path / "model.bin")


@pytest.mark.parametrize(
    ("declared", "heads"),
    [
        (None, [(1, 0), (1, 1)]),
        ([], [(1, 0), (1, 1)]),
        ([[0, 2]], [(1, 0), (1, 1)]),
        ([[0, 1], [1, 0]], [(0, 1), (1, 0)]),
    ],
)
def test_alignment_heads_are_declared_or_those_of_the_upper_half(declared: Any, heads: list[tuple[int, int]]) -> None:
    assert whisper_model._alignment_heads(declared, layers=2, heads=2) == heads


@pytest.fixture
def split_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PackagedFile:
    """A file of which two wheels have a part each; pip copies them from a folder instead of an index."""
    monkeypatch.setenv("TRITONIC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    for name, data in (("part_one", b"first "), ("part_two", b"second")):
        with zipfile.ZipFile(tmp_path / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{name}/model.bin", data)
            info = f"{name}-1.0.dist-info"
            wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")
    parts = (WheelPart("part-one==1.0", "part_one/model.bin"), WheelPart("part-two==1.0", "part_two/model.bin"))
    return PackagedFile("model.bin", parts, hashlib.sha256(b"first second").hexdigest(), 12)


def test_parts_in_several_packages_become_one_file(split_file: PackagedFile, monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = packaged_files.fetch([split_file], NullProgress())
    assert path.read_bytes() == b"first second"
    monkeypatch.setattr(packaged_files, "download_wheel", None)
    assert packaged_files.fetch([split_file], NullProgress()) == [path]
    path.write_bytes(b"first sexond")
    with pytest.raises(TypeError):  # a damaged file is downloaded again
        packaged_files.fetch([split_file], NullProgress())


@pytest.mark.parametrize(
    ("size", "path", "sentence"),
    [
        (12, "model.bin", "part-one==1.0 and part-two==1.0 holds other weights than expected: sha256"),
        (13, "model.bin", "12 bytes instead of 13"),
        (11, "model.bin", "12 bytes instead of 11"),
        (12, "absent.bin", "there is no part_two/absent.bin"),
    ],
)
def test_other_contents_are_refused(split_file: PackagedFile, size: int, path: str, sentence: str) -> None:
    parts = (split_file.parts[0], WheelPart("part-two==1.0", f"part_two/{path}"))
    with pytest.raises(SourceUnavailable, match=sentence):
        packaged_files.fetch([PackagedFile("model.bin", parts, "0" * 64, size)], NullProgress())
    assert not list((packaged_files.cache_folder() / "packaged").iterdir())


def test_the_packaged_recipes_are_known_without_their_weights() -> None:
    for name in PACKAGED_WHISPERS:
        source = sources.resolve(recipe.load(name).source)
        assert isinstance(source, PackagedWhisperSource)
        whisper_model.check_config(source.config())
        assert source.package.model.sha256 in source.digest()


def test_hub_recipes_are_of_the_family() -> None:
    assert recipe.load("whisper-small").precision == "int8"
    turbo = recipe.load("whisper-large-v3-turbo")
    assert (turbo.precision, turbo.family) == ("fp16", "transcription")


def test_the_recording_is_speech() -> None:
    samples = recording.samples()
    assert samples.dtype == np.float32 and len(samples) == 88_000
    assert 0.2 < np.abs(samples).max() < 1 and abs(float(samples.mean())) < 1e-3


def test_word_errors_leave_out_case_and_punctuation() -> None:
    assert word_errors("It was, the BEST of times.", "it was the best of times") == (0, 6)
    assert word_errors("one two three", "one three four five") == (3, 3)
    assert word_errors("don't", "dont") == (0, 1)
    assert word_errors("", "word") == (1, 0)


def test_the_divergence_of_equal_distributions_is_nought() -> None:
    logits = np.array([[0.0, 1.0, 2.0]])
    assert kullback_leibler(logits, logits + 7)[0] == 0
    assert kullback_leibler(np.log([[0.5, 0.5]]), np.log([[0.25, 0.75]]))[0] == pytest.approx(0.1438410)
