"""The families speak as the libraries do; wrong folders and parameters are refused."""

import json
from pathlib import Path
from typing import Any

import hibari
import numpy as np
import pytest
from hibari import Hibari

from backends.speech.families.acoustic_model import ModelFolder
from backends.speech.families.kokoro import KokoroModel
from backends.speech.families.loading import load_model
from backends.speech.options import Options, read_options
from backends.speech.request_frontend import to_pcm
from backends.speech.speaker import PieceSpeaker
from backends.speech.voices import Voice

ASSETS = Path(hibari.__file__).parent / "assets"
VOCABULARY = json.loads((ASSETS / "vocab.json").read_bytes())
SENTENCE = "Please call me tomorrow morning, if the weather is good."


def write_folder(folder: Path, family: str, voices: dict[str, str]) -> Path:
    values = {"family": family, "sample_rate": 24_000, "vocabulary": VOCABULARY, "voices": voices}
    (folder / "model.json").write_text(json.dumps(values))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "heart.onnx").symlink_to(ASSETS / "hibari.onnx")
    return write_folder(tmp_path, "hibari", {"heart": "heart.onnx"})


def test_hibari_speaks_as_its_library_does(folder: Path) -> None:
    library, model = Hibari(), load_model(folder)
    (phonemes,) = library.phonemize(SENTENCE)
    expected = library(SENTENCE, seed=0)
    sound = model.synthesize(phonemes, "heart", 1.0)
    assert np.array_equal(sound.samples, expected)
    assert np.array_equal(model.synthesize(phonemes, "heart", 1.0).samples, expected), "the same twice"
    assert (sound.num_tokens, sound.num_frames) == (len(library.ids(phonemes)) - 2, len(expected) // 300)
    slow = model.synthesize(phonemes, "heart", 0.5)
    assert np.array_equal(slow.samples, library(SENTENCE, speed=0.5, seed=0))
    assert slow.num_frames > 1.8 * sound.num_frames


def test_the_parts_of_hibaris_sound_are_the_whole(folder: Path) -> None:
    model = load_model(folder)
    (phonemes,) = Hibari().phonemize(SENTENCE)
    whole = model.synthesize(phonemes, "heart", 1.0)
    first, rest = model.synthesize_parts(phonemes, "heart", 1.0)
    joined = np.concatenate([first.samples, rest.samples])
    assert len(first.samples) == 12_000 and len(joined) == len(whole.samples)
    assert np.abs(joined - whole.samples).max() < 1e-5
    assert np.abs(whole.samples[:12_000]).max() > 0.1, "the first part has speech"
    assert (first.num_tokens + rest.num_tokens, first.num_frames + rest.num_frames) == (
        whole.num_tokens,
        whole.num_frames,
    )
    (only,) = model.synthesize_parts("hˈI.", "heart", 2.0)
    assert np.array_equal(only.samples, model.synthesize("hˈI.", "heart", 2.0).samples)


def test_a_piece_longer_than_the_kept_noise_sounds_as_the_librarys(folder: Path) -> None:
    library, model = Hibari(), load_model(folder)
    sentence = ", ".join(["one two three four five six seven"] * 6)
    (phonemes,) = library.phonemize(sentence)
    sound = model.synthesize(phonemes, "heart", 0.5)
    assert sound.num_frames > 1200
    assert np.array_equal(sound.samples, library(sentence, speed=0.5, seed=0))
    first, rest = model.synthesize_parts(phonemes, "heart", 0.5)
    assert np.abs(np.concatenate([first.samples, rest.samples]) - sound.samples).max() < 1e-5


def test_speeds_beyond_the_networks_own_are_reached(folder: Path) -> None:
    speak = PieceSpeaker(load_model(folder))
    (phonemes,) = Hibari().phonemize(SENTENCE)
    seconds = {speed: len(speak(phonemes, "heart", speed).samples) / 24_000 for speed in (0.25, 0.5, 1, 2, 4)}
    assert seconds[0.25] == pytest.approx(2 * seconds[0.5], rel=0.01)
    assert seconds[4] == pytest.approx(seconds[2] / 2, rel=0.01)
    assert seconds[4] < 0.35 * seconds[1] < seconds[0.25] / 10


def tiny_kokoro(path: Path, ids_name: str) -> None:
    """Write a network whose samples are its inputs: the ids, the first number of the style, and the speed."""
    import onnx
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("Cast", [ids_name], ["ids"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["ids"], ["row"], axis=0),
        helper.make_node("Unsqueeze", ["speed", "zero"], ["factor"]),
        helper.make_node("Concat", ["row", "style", "factor"], ["audio"], axis=1),
    ]
    inputs = [
        helper.make_tensor_value_info(ids_name, TensorProto.INT64, [1, "n"]),
        helper.make_tensor_value_info("style", TensorProto.FLOAT, [1, 256]),
        helper.make_tensor_value_info("speed", TensorProto.FLOAT, [1]),
    ]
    outputs = [helper.make_tensor_value_info("audio", TensorProto.FLOAT, [1, "m"])]
    zero = helper.make_tensor("zero", TensorProto.INT64, [1], [0])
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, [zero])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))


@pytest.mark.parametrize("ids_name", ["tokens", "input_ids"])
def test_kokoro_gets_the_style_of_the_number_of_phonemes(tmp_path: Path, ids_name: str) -> None:
    tiny_kokoro(tmp_path / "model.onnx", ids_name)
    np.repeat(np.arange(510, dtype="<f4"), 256).tofile(tmp_path / "af_heart.bin")
    model = load_model(write_folder(tmp_path, "kokoro", {"af_heart": "af_heart.bin"}))
    sound = model.synthesize("həlˈO→☃", "af_heart", 1.5)
    ids = [0, *(VOCABULARY[symbol] for symbol in "həlˈO→"), 0]
    assert sound.samples[: len(ids)].tolist() == ids
    assert sound.samples[len(ids)] == len("həlˈO→") - 1 and sound.samples[-1] == 1.5
    assert (sound.num_tokens, model.mixes_accents) == (6, True)
    with pytest.raises(ValueError, match="does not hold 510 styles"):
        (tmp_path / "af_heart.bin").write_bytes(b"1234")
        KokoroModel(ModelFolder(tmp_path))


def test_folders_that_are_no_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"model\.json is missing"):
        load_model(tmp_path)
    (tmp_path / "model.json").write_text("{")
    with pytest.raises(ValueError, match="cannot be read"):
        load_model(tmp_path)
    with pytest.raises(ValueError, match="family 'parrot'; known: hibari, kokoro"):
        load_model(write_folder(tmp_path, "parrot", {}))
    with pytest.raises(FileNotFoundError, match=r"eve\.onnx is missing"):
        load_model(write_folder(tmp_path, "hibari", {"eve": "eve.onnx"}))


def test_samples_become_integers_without_wrapping() -> None:
    assert to_pcm(np.array([0, 0.5, 1, 1.5, -2], np.float32)).tolist() == [0, 16383, 32767, 32767, -32767]


def parameters(**values: Any) -> dict[str, dict[str, str]]:
    voices = json.dumps([{"id": "ann", "name": "Ann", "language": "en-US", "gender": "female"}])
    return {name: {"string_value": str(value)} for name, value in ({"voices": voices} | values).items()}


def test_parameters() -> None:
    assert read_options(parameters()) == Options(voices=(Voice("ann", "Ann", "en-US"),), default_voice="ann")
    given = read_options(parameters(max_characters=10, max_rows=2, max_waiting=0, threads=3, phonemizer="espeak"))
    assert (given.max_characters, given.max_rows, given.max_waiting, given.num_threads) == (10, 2, 0, 3)
    assert given.phonemizer == "espeak"


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"voices": "[]"}, "The parameter voices is"),
        ({"voices": '[{"id": "a"}]'}, "The parameter voices is"),
        ({"voices": '[{"id": "a", "name": "A", "language": "fr-FR"}]'}, "en-US, en-GB"),
        ({"default_voice": "bob"}, "default_voice is 'bob', which is none of the voices"),
        ({"phonemizer": "magic"}, "phonemizer is 'magic'; this backend has hibari, espeak"),
        ({"max_rows": 0}, "max_rows"),
    ],
)
def test_wrong_parameters_are_refused(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        read_options(parameters(**values))
