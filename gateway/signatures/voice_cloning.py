"""The tensors of published text-to-speech models that imitate a recording of a voice.

F5-TTS (SWivid/F5-TTS, src/f5_tts/runtime/triton_trtllm), CosyVoice 2 and 3 (FunAudioLLM/CosyVoice,
runtime/triton_trtllm) and Spark-TTS (SparkAudio/Spark-TTS, runtime/triton_trtllm). Their voices are recordings in the
models file (`gateway.models.models_file`).
"""

from collections.abc import AsyncGenerator, Mapping

from gateway.errors import GatewayError, ModelFailed, UnsupportedOption
from gateway.model_card.card import ModelCard
from gateway.operations.speak import Sound, Speak
from gateway.signatures import third_party
from gateway.signatures.call import Responses, Signature, SingleRequestCodec
from gateway.signatures.speech import check_rate, check_request
from gateway.triton.tensors import Tensor, int32_tensor, string_tensor

INPUTS: Mapping[str, str] = {"target_text": "BYTES"}
DISTINCTIVE_INPUTS: Mapping[str, str] = {"reference_wav": "FP32"}
OUTPUTS: Mapping[str, str] = {"waveform": "FP32"}

_UNSUPPORTED = ("language", "instructions")


def encode(request: Speak, card: ModelCard) -> list[Tensor]:
    """Return the tensors of `request`.

    Raises `InvalidRequest` for an unknown voice, and `UnsupportedOption` for an option that the model does not have, or
    where it needs the recording of a voice and the models file has none.
    """
    voice = check_request(request, card.speech) or card.speech.default
    if request.speed not in (None, 1):
        raise UnsupportedOption("This model does not support 'speed'.", param="speed")
    for name in _UNSUPPORTED:
        if getattr(request, name):
            raise UnsupportedOption(f"This model does not support '{name}'.", param=name)
    tensors = [string_tensor("target_text", request.text)]
    if voice is not None and voice.reference is not None:
        count = len(voice.reference.samples) // 4
        tensors += [
            Tensor("reference_wav", "FP32", (count,), voice.reference.samples),
            int32_tensor("reference_wav_len", count),
            string_tensor("reference_text", voice.reference.text),
        ]
    elif "reference_wav" not in card.config.optional:
        raise UnsupportedOption(
            "This model imitates the recording of a voice. The models file of the gateway has none for it.",
            param="model",
        )
    return third_party.fit_tensors(tensors, card.config)


def explain(error: GatewayError) -> GatewayError:
    """Return a failure with the caller's field name instead of that of a tensor."""
    if error.param == "target_text":
        error.param = "input"
    return error


async def decode(request: Speak, responses: Responses, card: ModelCard) -> AsyncGenerator[Sound]:
    """Yield each part of the speech as it arrives.

    Where responses overlap, the end of each is held back and blended with the beginning of the next. Raises
    `ModelFailed` for a response with no number, and where there is no sound.
    """
    from gateway.signatures.overlapping_audio import OverlappingAudio  # it imports numpy, which few gateways need

    rate = check_rate(card.speech.sample_rate, 0)
    audio = OverlappingAudio(int(card.speech.overlap_seconds * rate))
    async for response in responses:
        if samples := audio.add(response.float32_bytes("waveform")):
            yield Sound(samples, rate)
    if not audio.has_samples:
        raise ModelFailed("The model returned no sound.")
    if samples := audio.rest():
        yield Sound(samples, rate)


SIGNATURE = Signature(
    inputs=INPUTS,
    outputs=OUTPUTS,
    codecs={Speak.operation: SingleRequestCodec(encode, decode, explain)},
    distinctive_inputs=DISTINCTIVE_INPUTS,
)
