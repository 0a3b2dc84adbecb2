"""The transcription tensors (docs/architecture.md): audio in, a response for each segment of text out."""

from collections.abc import AsyncGenerator, Mapping
from functools import partial
from typing import Any

import orjson

from gateway.errors import GatewayError, UnsupportedOption
from gateway.model_card.card import ModelCard
from gateway.operations.language_names import language_name
from gateway.operations.transcribe import Transcribe
from gateway.operations.transcript_events import Segment, TokenLogprob, Word
from gateway.signatures.call import Call, Responses, Signature
from gateway.signatures.sound_pieces import Piece, PiecePlace, PieceResult, PieceSequence
from gateway.triton.tensors import InferResponse, Tensor, bool_tensor, float32_tensor, string_tensor

INPUTS: Mapping[str, str] = {"audio": "FP32"}
OUTPUTS: Mapping[str, str] = {"text": "BYTES"}

_PIECE_SECONDS = 120.0
"""Seconds of a piece: enough to fill a batch of windows, and few enough that the text comes early."""
_DEFAULT_MAX_SECONDS = 600.0
"""Longest piece of a model that declares none."""
_FIELDS = {
    "audio": "file",
    "vad": "chunking_strategy",
    "timestamps": "response_format",
    "return_logprobs": "include",
    "task": "model",
}
"""The caller's fields by input tensor, where the names differ."""


class TranscriptionCodec:
    """Encodes recordings as pieces, and decodes the segments of each."""

    def num_requests(self, request: Transcribe, card: ModelCard) -> int:
        """Return 1: the pieces are sent one after another."""
        return 1

    def open(self, request: Transcribe, card: ModelCard) -> Call:
        """Encode a request, see `gateway.signatures.call.Codec.open`."""
        check_limits(request, card)
        options = _encode_options(request, card)
        sequence = PieceSequence(
            request.audio,
            partial(_encode, options, card),
            _decode,
            language=request.language,
            seconds=_PIECE_SECONDS,
            max_seconds=card.transcription.max_seconds or _DEFAULT_MAX_SECONDS,
            reports_consumed=card.has_input("more"),
        )
        return sequence.call(explain)


def check_limits(request: Transcribe, card: ModelCard) -> None:
    """Raise `UnsupportedOption` for a task or a language that the model does not declare."""
    limits = card.transcription
    if limits.tasks is not None and request.task not in limits.tasks:
        able = "only translates" if request.task == "transcribe" else "does not translate"
        raise UnsupportedOption(f"The model '{card.name}' {able}.", param="model")
    if request.language and limits.languages is not None and request.language not in limits.languages:
        shown = ", ".join(limits.languages[:12])
        more = f" and {len(limits.languages) - 12} more" if len(limits.languages) > 12 else ""
        raise UnsupportedOption(
            f"The model '{card.name}' does not know {language_name(request.language).title()} ('{request.language}'); "
            f"it knows {shown}{more}.",
            param="language",
        )


def _encode_options(request: Transcribe, card: ModelCard) -> list[Tensor]:
    """Return the tensors that all pieces share. Raises `UnsupportedOption` for an option that the model lacks."""
    tensors = []
    if card.has_input("task"):
        tensors.append(string_tensor("task", request.task))
    elif request.task != "transcribe":
        raise UnsupportedOption(f"The model '{card.name}' does not translate.", param="model")
    if card.has_input("timestamps"):
        tensors.append(string_tensor("timestamps", request.timestamps))
    elif request.timestamps != "none":
        raise UnsupportedOption(f"The model '{card.name}' reports no times.", param="response_format")
    if request.prompt:
        _require(card, "prompt")
        tensors.append(string_tensor("prompt", request.prompt))
    if request.temperature is not None:
        _require(card, "temperature")
        tensors.append(float32_tensor("temperature", request.temperature))
    if request.logprobs:
        _require(card, "return_logprobs")
        tensors.append(bool_tensor("return_logprobs", True))
    if request.vad or (request.vad is not None and card.has_input("vad")):
        _require(card, "vad")
        tensors.append(string_tensor("vad", orjson.dumps(dict(request.vad)).decode()))
    if request.language and card.transcription.languages != (request.language,):
        _require(card, "language")
    return tensors


def _require(card: ModelCard, name: str) -> None:
    if not card.has_input(name):
        field = _FIELDS.get(name, name)
        raise UnsupportedOption(f"The model '{card.name}' does not support '{field}'.", param=field)


def _encode(options: list[Tensor], card: ModelCard, piece: Piece) -> list[Tensor]:
    tensors = [Tensor("audio", "FP32", (len(piece.samples) // 4,), piece.samples), *options]
    if piece.language and card.has_input("language"):
        tensors.append(string_tensor("language", piece.language))
    if piece.has_more and card.has_input("more"):
        tensors.append(bool_tensor("more", True))
    return tensors


def explain(error: GatewayError) -> GatewayError:
    """Return a failure with the caller's name of the field."""
    error.param = _FIELDS.get(error.param, error.param) if error.param else None
    return error


async def _decode(place: PiecePlace, responses: Responses, result: PieceResult) -> AsyncGenerator[Segment]:
    """Yield the segments as they arrive, with their times in the whole recording."""
    async for response in responses:
        result.language = _first(response.strings("language")) or result.language
        result.consumed = _first(response.float32s("consumed"), result.consumed)
        result.input_tokens = _add(result.input_tokens, response.uint32s("num_input_tokens"))
        result.audio_tokens = _add(result.audio_tokens, response.uint32s("num_audio_tokens"))
        counted = response.uint32s("num_output_tokens")
        result.output_tokens = _add(result.output_tokens, counted)
        text = "".join(response.strings("text"))
        result.silent_tokens += sum(counted)
        if text:
            yield _segment(text, response, place, result)
            result.silent_tokens = 0


def _segment(text: str, response: InferResponse, place: PiecePlace, result: PieceResult) -> Segment:
    start, end = (_first(response.float32s(name)) for name in ("start", "end"))
    words = _first(response.strings("words"))
    logprobs = _first(response.strings("logprobs"))
    return Segment(
        text=text,
        start=None if start is None else place.start + start,
        end=None if end is None else place.start + end,
        language=result.language,
        words=tuple(_word(entry, place.start) for entry in orjson.loads(words)) if words else (),
        token_ids=response.int32s("token_ids"),
        avg_logprob=_first(response.float32s("avg_logprob")),
        no_speech_prob=_first(response.float32s("no_speech_prob")),
        compression_ratio=_first(response.float32s("compression_ratio")),
        temperature=_first(response.float32s("temperature")),
        logprobs=tuple(_logprob(entry) for entry in orjson.loads(logprobs)) if logprobs else (),
        seek=int(place.start * 100),
        tokens=result.silent_tokens,
    )


def _word(entry: dict[str, Any], shift: float) -> Word:
    probability = entry.get("probability")
    return Word(
        word=str(entry["word"]),
        start=shift + float(entry["start"]),
        end=shift + float(entry["end"]),
        probability=None if probability is None else float(probability),
    )


def _logprob(entry: dict[str, Any]) -> TokenLogprob:
    values = tuple(int(byte) for byte in entry["bytes"])
    bytes(values)  # raises ValueError for a number that is no byte
    return TokenLogprob(str(entry["token"]), values, float(entry["logprob"]))


def _first(values: Any, default: Any = None) -> Any:
    return next(iter(values), default)


def _add(total: int | None, counted: tuple[int, ...]) -> int | None:
    return (total or 0) + sum(counted) if counted else total


SIGNATURE = Signature(inputs=INPUTS, outputs=OUTPUTS, codecs={Transcribe.operation: TranscriptionCodec()})
