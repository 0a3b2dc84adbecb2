"""Recordings in pieces, and the tensors of each."""

import json
import math
import struct
from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb

from gateway.errors import GatewayError, InvalidRequest, ModelFailed, UnsupportedOption
from gateway.model_card.card import ModelCard
from gateway.operations.transcribe import Transcribe
from gateway.operations.transcript_events import PieceEnd, Segment, TranscriptionEnd
from gateway.signatures import registry, transcription
from gateway.signatures.registry import SIGNATURES
from gateway.triton.model_config import ModelConfig
from gateway.triton.tensors import InferResponse
from tests.unit.gateway.model_cards import card_of

INPUTS = {
    "audio": "FP32",
    **dict.fromkeys(("task", "timestamps", "language", "prompt", "vad"), "BYTES"),
    "temperature": "FP32",
    **dict.fromkeys(("more", "return_logprobs"), "BOOL"),
}
SECOND = 64_000


def card(parameters: dict[str, str] | None = None, inputs: dict[str, str] = INPUTS) -> ModelCard:
    return card_of(ModelConfig("ear", parameters or {}, inputs, {"text": "BYTES"}, b""), "transcribe")


def sound(*parts: tuple[float, float]) -> bytes:
    """Samples of the given amplitude and seconds."""
    return b"".join(np.full(int(16_000 * seconds), level, "<f4").tobytes() for level, seconds in parts)


def response(**outputs: Any) -> InferResponse:
    message = pb.ModelInferResponse()
    for name, value in outputs.items():
        if isinstance(value, str):
            kind, raw = "BYTES", struct.pack("<I", len(value.encode())) + value.encode()
        elif isinstance(value, float):
            kind, raw = "FP32", struct.pack("<f", value)
        else:
            kind, raw = "UINT32", struct.pack("<I", value)
        message.outputs.add(name=name, datatype=kind, shape=[1])
        message.raw_output_contents.append(raw)
    return InferResponse(message)


class Stream:
    has_buffered = False

    def __init__(self, *responses: InferResponse) -> None:
        self._left = list(responses)

    def __aiter__(self) -> "Stream":
        return self

    async def __anext__(self) -> InferResponse:
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop(0)

    async def aclose(self) -> None:
        pass


async def play(request: Transcribe, model: ModelCard, answers: Any, signature: str = "transcription") -> Any:
    """Return the tensors of each piece, and all events. `answers` returns the responses to a piece."""
    call = SIGNATURES[signature].codecs["transcribe"].open(request, model)
    sent, events = [], []

    async def take(piece: Any) -> None:
        tensors = {tensor.name: tensor for tensor in piece.tensors}
        sent.append(tensors)
        events.extend([event async for event in piece.events(Stream(*answers(len(sent), tensors)))])

    for piece in call.requests:
        await take(piece)
    if call.sequence:
        async for piece in call.sequence:
            await take(piece)
    return sent, events


def seconds_of(tensors: Any) -> float:
    return len(tensors["audio"].data) / SECOND


async def test_the_next_piece_begins_where_the_model_stopped() -> None:
    audio = sound((0.5, 300.0))
    consumed = iter((100.5, 119.0))

    def answers(number: int, tensors: Any) -> list[InferResponse]:
        segment = response(text=f" {number}", start=1.0, end=2.0, language="de", num_output_tokens=2)
        last = {"consumed": next(consumed)} if "more" in tensors else {"consumed": seconds_of(tensors)}
        return [segment, response(**last, num_input_tokens=10, num_audio_tokens=8, num_output_tokens=1)]

    request = Transcribe(model="ear", audio=audio, prompt="p")
    sent, events = await play(request, card(), answers)
    assert [seconds_of(tensors) for tensors in sent] == [120.0, 120.0, 80.5]
    assert ["more" in tensors for tensors in sent] == [True, True, False]
    # The language that the first piece shows is that of the recording.
    assert ["language" in tensors for tensors in sent] == [False, True, True]
    assert all("prompt" in tensors for tensors in sent)
    segments = [event for event in events if isinstance(event, Segment)]
    assert [(segment.start, segment.seek) for segment in segments] == [(1.0, 0), (101.5, 10_050), (220.5, 21_950)]
    ends = [event for event in events if isinstance(event, PieceEnd)]
    assert [end.end for end in ends] == [100.5, 219.5, 300.0] and {end.total for end in ends} == {300.0}
    assert math.isclose(sum(end.audio_seconds for end in ends), 300.0)
    assert events[-1] == TranscriptionEnd(
        language="de", duration=300.0, prompt_tokens=30, audio_tokens=24, completion_tokens=9
    )


async def test_a_piece_grows_until_the_model_finds_a_place_to_stop() -> None:
    audio = sound((0.5, 700.0))

    def answers(number: int, tensors: Any) -> list[InferResponse]:
        return [response(consumed=0.0 if "more" in tensors else seconds_of(tensors))]

    sent, events = await play(Transcribe(model="ear", audio=audio), card({"max_seconds": "300"}), answers)
    # The longest piece is cut where it ends, as the model would not move on.
    assert [seconds_of(tensors) for tensors in sent] == [120.0, 240.0, 300.0, 120.0, 240.0, 300.0, 100.0]
    assert [event.end for event in events if isinstance(event, PieceEnd)][-1] == 700.0
    assert events[-1] == TranscriptionEnd(language="", duration=700.0)


async def test_short_samples_are_one_request() -> None:
    call = transcription.SIGNATURE.codecs["transcribe"].open(Transcribe(model="ear", audio=sound((0.1, 1.0))), card())
    assert len(call.requests) == 1 and call.sequence is None


async def test_a_model_without_the_input_more_gets_pieces_that_end_in_silence() -> None:
    inputs = {name: kind for name, kind in INPUTS.items() if name != "more"}
    audio = sound((0.5, 115.0), (0.0, 1.0), (0.5, 30.0))
    request = Transcribe(model="ear", audio=audio)
    sent, _ = await play(request, card(inputs=inputs), lambda number, tensors: [response(text=" x")])
    first, second = map(seconds_of, sent)
    assert 115.0 < first < 116.0 and first + second == 146.0


@pytest.mark.parametrize(
    ("options", "parameters", "missing", "param"),
    [
        ({"language": "de"}, {"languages": '["en"]'}, (), "language"),
        ({"task": "translate"}, {"tasks": '["transcribe"]'}, (), "model"),
        ({"task": "translate"}, {}, ("task",), "model"),
        ({"timestamps": "segment"}, {}, ("timestamps",), "response_format"),
        ({"prompt": "x"}, {}, ("prompt",), "prompt"),
        ({"temperature": 0.5}, {}, ("temperature",), "temperature"),
        ({"logprobs": True}, {}, ("return_logprobs",), "include"),
        ({"vad": (("threshold", 0.5),)}, {}, ("vad",), "chunking_strategy"),
        ({"language": "de"}, {}, ("language",), "language"),
    ],
)
def test_options_that_a_model_lacks_are_refused(options: Any, parameters: Any, missing: Any, param: str) -> None:
    inputs = {name: kind for name, kind in INPUTS.items() if name not in missing}
    with pytest.raises(UnsupportedOption) as failure:
        transcription.TranscriptionCodec().open(Transcribe(model="ear", audio=b"", **options), card(parameters, inputs))
    assert failure.value.param == param and "ear" in failure.value.message


def test_options_become_tensors() -> None:
    request = Transcribe(
        model="ear",
        audio=b"",
        language="de",
        task="translate",
        prompt="p",
        temperature=0.5,
        timestamps="word",
        logprobs=True,
        vad=(("threshold", 0.25),),
    )
    (sent,) = transcription.TranscriptionCodec().open(request, card()).requests
    found = {tensor.name: tensor.data for tensor in sent.tensors}
    assert json.loads(found["vad"][4:]) == {"threshold": 0.25}
    assert found["temperature"] == struct.pack("<f", 0.5) and found["return_logprobs"] == b"\x01"
    assert found["timestamps"].endswith(b"word") and found["task"].endswith(b"translate")
    # An English-only model needs no language.
    english = card({"languages": '["en"]'}, {"audio": "FP32"})
    assert transcription.TranscriptionCodec().open(Transcribe(model="ear", audio=b"", language="en"), english).requests


@pytest.mark.parametrize(
    "outputs",
    [
        {"words": "[1]"},
        {"words": "{"},
        {"words": '[{"word": "x", "start": null, "end": 1}]'},
        {"logprobs": '[{"token": "x", "bytes": [300], "logprob": 0}]'},
        {"logprobs": '"x"'},
        {"start": "x"},
    ],
    ids=str,
)
async def test_outputs_that_cannot_be_read_are_a_failure_of_the_model(outputs: Any) -> None:
    with pytest.raises(ModelFailed):
        await play(Transcribe(model="ear", audio=b""), card(), lambda number, tensors: [response(text="x", **outputs)])


@pytest.mark.parametrize(
    "parameters",
    [
        {"languages": '"en"'},
        {"languages": "[1]"},
        {"tasks": "[]"},
        {"sample_rate": "8000"},
        {"max_seconds": "0"},
        {"max_seconds": "nan"},
    ],
    ids=str,
)
def test_invalid_parameters_of_a_model(parameters: dict[str, str]) -> None:
    with pytest.raises(ValueError):
        card(parameters)


def test_errors_have_the_names_of_the_fields() -> None:
    for name, field in (("audio", "file"), ("vad", "chunking_strategy"), ("language", "language"), (None, None)):
        error: GatewayError = InvalidRequest("x", param=name)
        assert transcription.explain(error).param == field


WHISPER = {"TEXT_PREFIX": "BYTES", "WAV": "FP32", "WAV_LENS": "INT32"}


def whisper(batch: int = 8, **inputs: str) -> ModelConfig:
    return ModelConfig("whisper_bls", {}, {**WHISPER, **inputs}, {"TRANSCRIPTS": "BYTES"}, b"", max_batch_size=batch)


def test_the_layout_of_nvidia_is_recognised() -> None:
    for config in (whisper(), whisper(0), whisper(MAX_NEW_TOKENS="INT32")):
        completed, remark = registry.complete_config(config, {})
        assert completed.parameters["signature"] == "whisper_bls" and remark is None
        assert json.loads(completed.parameters["operations"]) == ["transcribe"]


async def test_the_layout_of_nvidia_gets_pieces_of_half_a_minute() -> None:
    completed, _ = registry.complete_config(whisper(MAX_NEW_TOKENS="INT32"), {})
    model = card_of(completed)
    audio = sound((0.5, 28.0), (0.0, 0.5), (0.5, 11.5))
    request = Transcribe(model="w", audio=audio, language="de", prompt="<|nospeech|>Tritonic")

    def answers(number: int, tensors: Any) -> list[InferResponse]:
        return [response(TRANSCRIPTS=f"Teil {number}"[:size]) for size in (3, 20)]

    sent, events = await play(request, model, answers, "whisper_bls")
    assert sent[0]["TEXT_PREFIX"].shape == (1, 1) and sent[0]["TEXT_PREFIX"].data[4:].decode() == (
        "<|startofprev|> < |nospeech|>Tritonic<|startoftranscript|><|de|><|transcribe|><|notimestamps|>"
    )
    count = len(sent[0]["WAV"].data) // 4
    assert sent[0]["WAV"].shape == (1, count) and sent[0]["WAV_LENS"].data == struct.pack("<i", count)
    assert "MAX_NEW_TOKENS" in sent[0]
    assert len(sent) == 2 and 28.0 < count / 16_000 < 28.5
    segments = [event for event in events if isinstance(event, Segment)]
    assert "".join(segment.text for segment in segments) == " Teil 1 Teil 2"
    assert segments[1].end == 40.0 == events[-1].duration
    unbatched = card_of(registry.complete_config(whisper(0), {})[0])
    (tensors,), _ = await play(
        Transcribe(model="w", audio=sound((0.1, 1.0))), unbatched, lambda *_: [response(TRANSCRIPTS="x")], "whisper_bls"
    )
    assert tensors["WAV"].shape == (16_000,) and tensors["TEXT_PREFIX"].data[4:] == b""


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"temperature": 0.5}, "temperature"),
        ({"logprobs": True}, "include"),
        ({"vad": (("threshold", 0.5),)}, "chunking_strategy"),
        ({"timestamps": "word"}, "timestamp_granularities"),
        ({"task": "translate"}, "language"),
        ({"prompt": "x"}, "language"),
    ],
)
def test_options_that_the_layout_of_nvidia_lacks(options: Any, param: str) -> None:
    model = card_of(registry.complete_config(whisper(), {})[0])
    with pytest.raises(UnsupportedOption) as failure:
        SIGNATURES["whisper_bls"].codecs["transcribe"].open(Transcribe(model="w", audio=b"", **options), model)
    assert failure.value.param == param
