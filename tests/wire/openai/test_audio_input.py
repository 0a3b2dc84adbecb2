"""Audio in messages: a speech model transcribes it, and the requested model reads the text."""

import base64
import io
import struct
import wave

import pytest

from tests.fakes.scripted_model import Say, ScriptedModel
from tests.fakes.triton import FakeTriton
from tests.wire.gateway_server import RunningGateway, run_gateway
from tests.wire.openai.text_requests import chat, check_error
from tests.wire.scripted_models import SCRIPTED_MODELS

pytestmark = pytest.mark.asyncio(loop_scope="session")


def encoded_sound(seconds: float = 0.1) -> str:
    """Return audio with 8,000 samples a second, in base64."""
    file = io.BytesIO()
    with wave.open(file, "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(8000)
        wav.writeframes(b"".join(struct.pack("<h", 100 * (i % 50)) for i in range(int(8000 * seconds))))
    return base64.b64encode(file.getvalue()).decode()


def audio_message(data: str, form: str = "wav") -> list[dict]:
    part = {"type": "input_audio", "input_audio": {"data": data, "format": form}}
    return [{"role": "user", "content": [{"type": "text", "text": "Answer this:"}, part]}]


async def test_the_transcript_replaces_the_audio_part() -> None:
    speech = ScriptedModel("speech", (Say("What is"), Say(" the time?", "stop")), is_transcription_model=True)
    triton = await FakeTriton([*SCRIPTED_MODELS, speech]).start()
    try:
        async with run_gateway(triton.url) as gateway:
            response = await chat(gateway, messages=audio_message(encoded_sound(0.5)))
            assert response.status_code == 200, response.text
            transcription, completion = triton.calls[-2:]
            assert (transcription.model, completion.model) == ("speech", "hello")
            assert abs(len(transcription.tensors["audio"]) - 8000) <= 16
            assert transcription.tensors["task"] == [b"transcribe"]
            assert "Answer this:\nWhat is the time?" in completion.prompt
            for data, form, param in (
                ("AAAA", "wav", "messages[0].content[1].input_audio.data"),
                (encoded_sound(), "tape", "messages[0].content[1].input_audio.format"),
            ):
                check_error(await chat(gateway, messages=audio_message(data, form)), 400, param=param)
    finally:
        await triton.stop()


async def test_audio_is_refused_without_a_transcription_model(gateway: RunningGateway) -> None:
    sentence = check_error(
        await chat(gateway, messages=audio_message(encoded_sound())),
        400,
        code="unsupported_parameter",
        param="messages[0].content[1]",
    )
    assert "no model transcribes it" in sentence
