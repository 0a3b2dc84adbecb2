"""The tensors of `backends/speech` (docs/architecture.md): a text in, and a response for each part of speech out."""

from collections.abc import AsyncGenerator, Mapping

from gateway.errors import GatewayError, InvalidRequest, ModelFailed, UnsupportedOption
from gateway.model_card.card import ModelCard
from gateway.model_card.speech import SpeechCard, Voice
from gateway.operations.speak import Sound, Speak, SpeechEvent, SpeechUsage
from gateway.signatures.call import Responses, Signature, SingleRequestCodec
from gateway.triton.tensors import Tensor, float32_tensor, string_tensor

INPUTS: Mapping[str, str] = {"text": "BYTES"}
OUTPUTS: Mapping[str, str] = {"audio": "INT16"}

_MAX_SAMPLE_RATE = 384_000
_MAX_LISTED_CHARACTERS = 2000
"""Characters of a list of voices in an error message."""


def encode(request: Speak, card: ModelCard) -> list[Tensor]:
    """Return the tensors of `request`.

    Raises `InvalidRequest` for an unknown voice and a text that is too long, and `UnsupportedOption` for an option that
    the model does not have.
    """
    voice = check_request(request, card.speech)
    options: dict[str, Tensor | None] = {
        "voice": string_tensor("voice", voice.id) if voice else None,
        "language": None if request.language is None else string_tensor("language", request.language),
        "speed": None if request.speed in (None, 1) else float32_tensor("speed", request.speed or 1),
        "instructions": None if not request.instructions else string_tensor("instructions", request.instructions),
    }
    tensors = [string_tensor("text", request.text)]
    for name, tensor in options.items():
        if tensor is None:
            continue
        if not card.has_input(name):
            raise UnsupportedOption(f"This model does not support '{name}'.", param=name)
        tensors.append(tensor)
    return tensors


def check_request(request: Speak, speech: SpeechCard) -> Voice | None:
    """Return the voice of a request; None where the model decides. Raises `InvalidRequest` and `UnsupportedOption`."""
    if len(request.text) > speech.max_characters:
        raise InvalidRequest(
            f"The text has {len(request.text)} characters; this model speaks up to {speech.max_characters}.",
            param="input",
        )
    if request.instructions and not speech.follows_instructions:
        raise UnsupportedOption(
            "This model does not follow 'instructions' about the manner of speaking.", param="instructions"
        )
    if request.voice is None:
        return speech.default if speech.default_voice is not None else None
    if not speech.accepts_voice(request.voice):
        raise _unknown_voice(request.voice, speech)
    return speech.find_voice(request.voice)


def _unknown_voice(name: str, speech: SpeechCard) -> InvalidRequest:
    known = speech.describe_voices()
    known = known if len(known) <= _MAX_LISTED_CHARACTERS else known[:_MAX_LISTED_CHARACTERS] + "…"
    if not known:
        return UnsupportedOption("This model offers no choice of voices; omit 'voice'.", param="voice")
    return InvalidRequest(f"The voice '{name[:100]}' does not exist. Voices of this model: {known}.", param="voice")


def explain(error: GatewayError) -> GatewayError:
    """Return a failure with the caller's field name instead of that of a tensor."""
    if error.param == "text":
        error.param = "input"
    return error


async def decode(request: Speak, responses: Responses, card: ModelCard) -> AsyncGenerator[SpeechEvent]:
    """Yield each part of the speech as it arrives, and the token counts. Raises `ModelFailed` where there is none."""
    prompt_tokens = completion_tokens = 0
    counted = spoken = False
    rate = 0
    async for response in responses:
        read, generated = response.uint32s("num_input_tokens"), response.uint32s("num_output_tokens")
        counted = counted or bool(read or generated)
        prompt_tokens += sum(read)
        completion_tokens += sum(generated)
        samples = response.int16_bytes("audio")
        if not samples:
            continue
        rate = check_rate(next(iter(response.int32s("sample_rate")), card.speech.sample_rate), rate)
        if len(samples) % 2:
            raise ModelFailed("The model returned half a sample.")
        spoken = True
        yield Sound(samples, rate, sum(generated))
    if not spoken:
        raise ModelFailed("The model returned no sound.")
    if counted:
        yield SpeechUsage(prompt_tokens, completion_tokens)


def check_rate(rate: int, before: int) -> int:
    """Return the sample rate of a response. Raises `ModelFailed` for one that no sound has, or that has changed."""
    if not 0 < rate <= _MAX_SAMPLE_RATE or before not in (0, rate):
        raise ModelFailed(f"The model returned sound of {rate} samples a second.")
    return rate


SIGNATURE = Signature(
    inputs=INPUTS, outputs=OUTPUTS, codecs={Speak.operation: SingleRequestCodec(encode, decode, explain)}
)
