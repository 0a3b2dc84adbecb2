"""The tensors of NVIDIA's Whisper on TensorRT-LLM, `whisper_bls`, and of the same layout in sherpa, `infer_bls`.

https://github.com/triton-inference-server/tensorrtllm_backend/tree/main/all_models/whisper and
https://github.com/k2-fsa/sherpa/tree/master/triton/whisper: `config.pbtxt` and `1/model.py`. A model reads up to 30
seconds, has no voice activity detection, does not detect languages and reports a text alone. `TEXT_PREFIX` holds the
tokens before the text, as Whisper writes them; empty: the model's default.
"""

from collections.abc import AsyncGenerator, Mapping
from functools import partial

from gateway.errors import UnsupportedOption
from gateway.model_card.card import ModelCard
from gateway.operations.recording import BYTES_PER_SECOND
from gateway.operations.transcribe import Transcribe
from gateway.operations.transcript_events import Segment
from gateway.signatures.call import Call, Responses, Signature
from gateway.signatures.sound_pieces import Piece, PiecePlace, PieceResult, PieceSequence
from gateway.signatures.transcription import check_limits, explain
from gateway.triton.tensors import Tensor, int32_tensor, string_tensor

INPUTS: Mapping[str, str] = {"TEXT_PREFIX": "BYTES", "WAV": "FP32"}
OUTPUTS: Mapping[str, str] = {"TRANSCRIPTS": "BYTES"}

_MAX_SECONDS = 30.0
"""Seconds that Whisper's encoder reads."""
_MAX_NEW_TOKENS = 224
"""Half of Whisper's context. Models without the input `MAX_NEW_TOKENS` have a limit of their own."""
_WITHOUT_SPACES = frozenset({"zh", "ja", "th", "lo", "my", "km", "bo", "yue"})
"""Languages that are written without spaces between sentences."""


class WhisperBLSCodec:
    """Encodes recordings as pieces of up to 30 seconds. Each gives one segment."""

    def num_requests(self, request: Transcribe, card: ModelCard) -> int:
        """Return 1: the pieces are sent one after another."""
        return 1

    def open(self, request: Transcribe, card: ModelCard) -> Call:
        """Encode a request, see `gateway.signatures.call.Codec.open`."""
        check_limits(request, card)
        prefix = _prefix(request, card)
        joint = "" if request.language in _WITHOUT_SPACES else " "
        sequence = PieceSequence(
            request.audio,
            partial(_encode, prefix, card),
            partial(_decode, joint),
            language=request.language,
            seconds=_MAX_SECONDS,
            max_seconds=card.transcription.max_seconds or _MAX_SECONDS,
            reports_consumed=False,
        )
        return sequence.call(explain)


def _prefix(request: Transcribe, card: ModelCard) -> str:
    """Return the tokens before the text. Raises `UnsupportedOption` for an option that the layout does not carry."""
    for field, is_set in (
        ("temperature", request.temperature is not None),
        ("include", request.logprobs),
        ("chunking_strategy", bool(request.vad)),
        ("timestamp_granularities", request.timestamps == "word"),
    ):
        if is_set:
            raise UnsupportedOption(f"The model '{card.name}' does not support '{field}'.", param=field)
    if request.language is None:
        if request.task == "translate" or request.prompt:
            raise UnsupportedOption(
                f"The model '{card.name}' does not detect languages: set 'language'.", param="language"
            )
        return ""
    # A caller's text must not become special tokens.
    previous = f"<|startofprev|> {request.prompt.replace('<|', '< |')}" if request.prompt else ""
    return f"{previous}<|startoftranscript|><|{request.language}|><|{request.task}|><|notimestamps|>"


def _encode(prefix: str, card: ModelCard, piece: Piece) -> list[Tensor]:
    tensors = [
        string_tensor("TEXT_PREFIX", prefix),
        Tensor("WAV", "FP32", (len(piece.samples) // 4,), piece.samples),
    ]
    if card.has_input("WAV_LENS"):
        tensors.append(int32_tensor("WAV_LENS", len(piece.samples) // 4))
    if card.has_input("MAX_NEW_TOKENS"):
        tensors.append(int32_tensor("MAX_NEW_TOKENS", _MAX_NEW_TOKENS))
    batch = (1,) if card.config.max_batch_size else ()
    return [Tensor(tensor.name, tensor.datatype, (*batch, *tensor.shape), tensor.data) for tensor in tensors]


async def _decode(joint: str, place: PiecePlace, responses: Responses, result: PieceResult) -> AsyncGenerator[Segment]:
    """Yield the text of the piece. A decoupled model repeats all of it in each response."""
    text = ""
    async for response in responses:
        text = "".join(response.strings("TRANSCRIPTS")).strip() or text
    if text:
        seconds = place.size / BYTES_PER_SECOND
        yield Segment(text=joint + text, start=place.start, end=place.start + seconds, seek=int(100 * place.start))


SIGNATURE = Signature(
    inputs=INPUTS,
    outputs=OUTPUTS,
    codecs={Transcribe.operation: WhisperBLSCodec()},
    distinctive_inputs={"WAV": "FP32"},
)
