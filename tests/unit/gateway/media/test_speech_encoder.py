"""Encoding of speech in processes of the fork server."""

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import numpy as np
import psutil
import pytest

from gateway.errors import GatewayError, Overloaded
from gateway.media import speech_encoder
from gateway.media.encoders.formats import CODECS, SpeechFormat
from gateway.media.fork_server import ForkServer
from gateway.media.speech_encoder import SpeechEncoder, complete_wav, wav_header
from gateway.operations.speak import Sound, SpeechEvent, SpeechUsage
from tests.wire.openai.speech_requests import decode

SECOND = (8000 * np.sin(np.arange(24_000) * 0.1)).astype("<i2").tobytes()


@pytest.fixture
async def server() -> AsyncIterator[ForkServer]:
    server = ForkServer()
    yield server
    await server.close()


async def speech(*seconds: float, pause: float = 0.0, usage: bool = True) -> AsyncGenerator[SpeechEvent]:
    for length in seconds:
        await asyncio.sleep(pause)
        yield Sound((SECOND * 10)[: int(length * len(SECOND)) // 2 * 2], 24_000)
    if usage:
        yield SpeechUsage(1, 2)


async def collect(encoded: AsyncGenerator[Any]) -> tuple[bytes, list[SpeechUsage]]:
    parts = [part async for part in encoded]
    return b"".join(part for part in parts if isinstance(part, bytes)), [p for p in parts if not isinstance(p, bytes)]


@pytest.mark.parametrize("speech_format", CODECS)
async def test_parts_of_any_length_make_one_file(server: ForkServer, speech_format: SpeechFormat) -> None:
    encoder = SpeechEncoder(server, num_slots=2)
    data, usage = await collect(encoder.encode(speech(0.001, 5.3, 0.02, 0.3), speech_format, "me"))
    assert usage == [SpeechUsage(1, 2)]
    assert 0 <= decode(data, speech_format)[0] - 5.62 < 0.15


async def test_nothing_said_is_no_file(server: ForkServer) -> None:
    for speech_format in CODECS:
        data, _ = await collect(SpeechEncoder(server, num_slots=1).encode(speech(usage=False), speech_format, "me"))
        assert data == b""


async def encoders() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


async def test_a_crash_of_an_encoder_ends_one_answer(server: ForkServer) -> None:
    encoder = SpeechEncoder(server, num_slots=4)
    async with aclosing(encoder.encode(speech(*[1.0] * 50, pause=0.01), "mp3", "me")) as encoded:
        await anext(encoded)
        (child,) = [
            process for process in await encoders() if process.children() == [] and process.ppid() != os.getpid()
        ]
        child.send_signal(signal.SIGSEGV)
        with pytest.raises(GatewayError, match="encoder of the speech has failed"):
            async for _ in encoded:
                pass
    data, _ = await collect(encoder.encode(speech(1.0), "mp3", "me"))
    assert decode(data, "mp3")[0] > 1


async def test_closing_an_answer_ends_its_process(server: ForkServer) -> None:
    encoder = SpeechEncoder(server, num_slots=1)
    for _ in range(3):  # there is one slot: each has to come back
        async with aclosing(encoder.encode(speech(*[1.0] * 50), "opus", "me")) as encoded:
            await anext(encoded)
    data, _ = await collect(encoder.encode(speech(1.0), "opus", "me"))
    assert data


async def test_waiting_for_a_slot_has_an_end(server: ForkServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech_encoder, "_SLOT_TIMEOUT_SECONDS", 0.05)
    encoder = SpeechEncoder(server, num_slots=1)
    async with aclosing(encoder.encode(speech(*[1.0] * 50), "flac", "me")) as encoded:
        await anext(encoded)
        with pytest.raises(Overloaded, match="Too many other answers"):
            await collect(encoder.encode(speech(1.0), "flac", "other"))
        # A file of samples needs no process.
        data, _ = await collect(encoder.encode(speech(1.0), "wav", "other"))
        assert data == wav_header(24_000) + SECOND


async def test_a_failure_of_the_model_is_passed_on(server: ForkServer) -> None:
    async def failing() -> AsyncGenerator[SpeechEvent]:
        yield Sound(SECOND, 24_000)
        raise Overloaded("No room.")

    with pytest.raises(Overloaded, match="No room"):
        await collect(SpeechEncoder(server, num_slots=1).encode(failing(), "aac", "me"))


def test_a_complete_file_has_its_length() -> None:
    data = complete_wav(wav_header(22_050) + b"abcd")
    assert data == wav_header(22_050, 4) + b"abcd"
    assert decode(data, "wav") == (2 / 22_050, 22_050)
