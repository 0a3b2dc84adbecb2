"""The tensors of speech models: our own, and those of models that imitate a recording."""

import json
import struct
import wave
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb

from gateway.errors import GatewayError, InvalidRequest, ModelFailed, UnsupportedOption
from gateway.model_card.card import ModelCard, parse
from gateway.models import models_file
from gateway.models.models_file import ModelsFileError
from gateway.operations.speak import Sound, Speak, SpeechUsage, gather
from gateway.signatures import registry, speech, voice_cloning
from gateway.triton.model_config import ModelConfig
from gateway.triton.tensors import InferResponse
from tests.unit.gateway.model_cards import card_of

REFERENCE = {"reference_wav": "FP32", "reference_wav_len": "INT32", "reference_text": "BYTES", "target_text": "BYTES"}


def response(**outputs: tuple[str, bytes]) -> InferResponse:
    message = pb.ModelInferResponse()
    for name, (kind, raw) in outputs.items():
        message.outputs.add(name=name, datatype=kind, shape=[1])
        message.raw_output_contents.append(raw)
    return InferResponse(message)


def spoken(
    samples: bytes, rate: int | None = 24_000, read: int | None = None, frames: int | None = None
) -> InferResponse:
    outputs: dict[str, tuple[str, bytes]] = {"audio": ("INT16", samples)}
    for name, kind, form, value in (
        ("sample_rate", "INT32", "<i", rate),
        ("num_input_tokens", "UINT32", "<I", read),
        ("num_output_tokens", "UINT32", "<I", frames),
    ):
        if value is not None:
            outputs[name] = (kind, struct.pack(form, value))
    return response(**outputs)


async def read(layout: Any, card: ModelCard, *responses: InferResponse) -> tuple[list[Sound], SpeechUsage | None]:
    async def arriving() -> AsyncGenerator[InferResponse]:
        for one in responses:
            yield one

    return await gather(layout.decode(Speak(model="m", text="x"), arriving(), card))


def own_card(**parameters: str) -> ModelCard:
    inputs = {"text": "BYTES", "voice": "BYTES", "speed": "FP32"}
    return card_of(ModelConfig("m", {"voices": '["a", "b"]', **parameters}, inputs, {"audio": "INT16"}, b""), "speak")


async def test_parts_and_their_tokens_are_read() -> None:
    sounds, usage = await read(speech, own_card(), spoken(b"abcd", read=5, frames=8), spoken(b"ef", read=2, frames=1))
    assert sounds == [Sound(b"abcd", 24_000, 8), Sound(b"ef", 24_000, 1)]
    assert usage == SpeechUsage(7, 9)


async def test_a_rate_that_is_not_sent_is_the_models() -> None:
    sounds, usage = await read(speech, own_card(sample_rate="16000"), spoken(b"ab", rate=None), spoken(b""))
    assert sounds == [Sound(b"ab", 16_000)] and usage is None


@pytest.mark.parametrize(
    "responses",
    [
        [],
        [spoken(b"")],
        [spoken(b"abc")],
        [spoken(b"ab", rate=0)],
        [spoken(b"ab", rate=-5)],
        [spoken(b"ab"), spoken(b"ab", rate=16_000)],
        [response(audio=("FP32", b"abcd"))],
    ],
)
async def test_malformed_speech_is_a_failure_of_the_model(responses: list[InferResponse]) -> None:
    with pytest.raises(ModelFailed):
        await read(speech, own_card(), *responses)


def test_errors_name_the_callers_fields() -> None:
    assert speech.explain(GatewayError("no", param="text")).param == "input"
    assert speech.explain(GatewayError("no", param="voice")).param == "voice"
    with pytest.raises(InvalidRequest, match=r"'c' does not exist. Voices of this model: a, b\."):
        speech.encode(Speak(model="m", text="x", voice="c"), own_card())
    with pytest.raises(UnsupportedOption, match="language"):
        speech.encode(Speak(model="m", text="x", language="en"), own_card())


def published(*, batch: int, optional: bool, **parameters: str) -> ModelConfig:
    """Return the configuration of F5-TTS, CosyVoice or Spark-TTS."""
    references = frozenset({"reference_wav", "reference_wav_len", "reference_text"})
    ranks = dict.fromkeys(REFERENCE, 2 if batch else 1)
    return ModelConfig(
        "f5_tts", parameters, REFERENCE, {"waveform": "FP32"}, b"", max_batch_size=batch, decoupled=False,
        ranks=ranks, optional=references if optional else frozenset(),
    )  # fmt: skip


def completed(config: ModelConfig, described: dict[str, str] | None = None) -> ModelCard:
    found, _ = registry.complete_config(config, described or {})
    return parse(found)


@pytest.mark.parametrize("batch", [0, 4])
def test_published_models_are_recognized(batch: int) -> None:
    card = completed(published(batch=batch, optional=False))
    assert (card.signature, set(card.operations)) == ("voice_cloning", {"speak"})


def write_wav(path: Path, samples: list[int], rate: int = 16_000, channels: int = 1) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(struct.pack(f"<{len(samples)}h", *samples))


TOML = """
[models.f5_tts]
sample_rate = 24000
overlap_seconds = 0.001
[models.f5_tts.voices.anna]
reference_wav = "anna.wav"
reference_text = "What I said."
gender = "female"
"""


@pytest.mark.parametrize("batch", [0, 4])
def test_voices_are_recordings_in_the_models_file(tmp_path: Path, batch: int) -> None:
    write_wav(tmp_path / "anna.wav", [0, 16384, -32768])
    (tmp_path / "models.toml").write_text(TOML)
    described = models_file.read(tmp_path / "models.toml")["f5_tts"]
    card = completed(published(batch=batch, optional=False), dict(described))
    for voice in (None, "anna", "alloy"):
        tensors = voice_cloning.encode(Speak(model="m", text="Say this.", voice=voice), card)
        found = {tensor.name: (tensor.datatype, tensor.shape, tensor.data) for tensor in tensors}
        one: tuple[int, ...] = (1, 1) if batch else (1,)
        samples = np.array([0, 0.5, -1], "<f4").tobytes()
        assert found == {
            "reference_wav": ("FP32", (1, 3) if batch else (3,), samples),
            "reference_wav_len": ("INT32", one, struct.pack("<i", 3)),
            "reference_text": ("BYTES", one, struct.pack("<I", 12) + b"What I said."),
            "target_text": ("BYTES", one, struct.pack("<I", 9) + b"Say this."),
        }
    for options in ({"speed": 2.0}, {"language": "en"}, {"instructions": "Whisper."}):
        with pytest.raises(UnsupportedOption):
            voice_cloning.encode(Speak(model="m", text="x", **options), card)


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        (TOML.replace("anna.wav", "none.wav"), "none.wav"),
        (TOML.replace("anna.wav", "fast.wav"), "44100 samples a second"),
        (TOML.replace("anna.wav", "wide.wav"), "2 channels"),
        (TOML.replace("anna.wav", "empty.wav"), "at most 60 seconds"),
        (TOML.replace("anna.wav", "text.wav"), "not a WAV file"),
        (TOML.replace("sample_rate", "default_voice = 'ben'\nsample_rate"), "default_voice 'ben'"),
        (TOML.replace("female", "other"), "gender"),
    ],
)
def test_recordings_that_cannot_be_used(tmp_path: Path, toml: str, words: str) -> None:
    write_wav(tmp_path / "anna.wav", [1])
    write_wav(tmp_path / "fast.wav", [1], rate=44_100)
    write_wav(tmp_path / "wide.wav", [1, 1], channels=2)
    write_wav(tmp_path / "empty.wav", [])
    (tmp_path / "text.wav").write_text("no sound")
    (tmp_path / "models.toml").write_text(toml)
    with pytest.raises(ModelsFileError, match=words):
        models_file.read(tmp_path / "models.toml")


def test_a_model_needs_a_recording_unless_its_input_is_optional() -> None:
    with pytest.raises(UnsupportedOption, match="models file"):
        voice_cloning.encode(Speak(model="m", text="x"), completed(published(batch=0, optional=False)))
    tensors = voice_cloning.encode(Speak(model="m", text="x"), completed(published(batch=0, optional=True)))
    assert [tensor.name for tensor in tensors] == ["target_text"]


def waves(*parts: Any) -> list[InferResponse]:
    return [response(waveform=("FP32", np.asarray(part, "<f4").tobytes())) for part in parts]


async def test_waveforms_become_samples() -> None:
    card = completed(published(batch=0, optional=True, sample_rate="16000"))
    sounds, usage = await read(voice_cloning, card, *waves([0, 0.5, -1, 2], [1 / 32767], []))
    assert [struct.unpack(f"<{len(sound.samples) // 2}h", sound.samples) for sound in sounds] == [
        (0, 16384, -32767, 32767),
        (1,),
    ]
    assert {sound.sample_rate for sound in sounds} == {16_000} and usage is None


async def test_overlapping_waveforms_are_blended() -> None:
    config = published(batch=0, optional=True, sample_rate="1000", overlap_seconds="0.1")
    tone = np.full(450, 0.5, np.float32)
    # Three responses of 250, 250 and 150 samples; each begins with the last 100 of the one before.
    parts = [tone[:250], tone[150:400], tone[300:450]]
    sounds, _ = await read(voice_cloning, completed(config), *waves(*parts))
    joined = np.frombuffer(b"".join(sound.samples for sound in sounds), "<i2")
    assert joined.size == 450 and abs(joined.astype(int) - 16384).max() <= 1
    assert len(sounds[0].samples) == 2 * 150


@pytest.mark.parametrize("parts", [[], [[]], [[float("nan")]], [[0.1, float("inf")]]], ids=str)
async def test_waveforms_that_are_no_sound(parts: list[Any]) -> None:
    with pytest.raises(ModelFailed):
        await read(voice_cloning, completed(published(batch=0, optional=True)), *waves(*parts))


def test_voices_survive_the_card() -> None:
    card = own_card(voices=json.dumps([{"id": "a", "reference": "AACAPw==", "reference_text": "x"}]))
    reference = card.speech.voices[0].reference
    assert reference is not None and struct.unpack("<f", reference.samples) == (1.0,)
    assert "AACA" not in repr(card.speech)
