"""Encodes speech while it is spoken: as samples in this process, or by FFmpeg in a process of its own."""

import asyncio
import importlib.util
import struct
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TypeAlias

from gateway.errors import RETRY_AFTER_SECONDS, GatewayError, Overloaded, UnsupportedOption
from gateway.fair_sharing import FairSemaphore
from gateway.media.encoders.formats import CODECS, PCM_RATE, SpeechFormat
from gateway.media.fork_server import ForkServer, ForkServerUnavailable, Job
from gateway.operations.speak import Sound, SpeechEvent, SpeechUsage

_PIECE_SECONDS = 2
"""Seconds of speech that are encoded at a time."""
_SLOT_TIMEOUT_SECONDS = 30.0
_PIECE_TIMEOUT_SECONDS = 30.0
"""Seconds for encoding a piece, which takes milliseconds."""
_CPU_SECONDS = 3600.0
"""CPU time of one stream: of some days of speech."""
_MEMORY_BYTES = 512 * 1024 * 1024
"""Address space of an encoder beside its libraries."""
_RATE = struct.Struct("!I")
_WAV_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")
_UNKNOWN_LENGTH = 0xFFFFFFFF

Encoded: TypeAlias = bytes | SpeechUsage
"""Bytes of the file, and at the end the token counts."""


class SpeechEncoder:
    """Encodes streams of speech. Each that needs FFmpeg has a child process of the fork server."""

    def __init__(self, server: ForkServer, *, num_slots: int) -> None:
        """`num_slots` streams may have a process at a time, shared fairly among callers; others wait for a slot."""
        self._fork_server = server
        self._slots = FairSemaphore(num_slots)

    async def encode(
        self, events: AsyncGenerator[SpeechEvent], speech_format: SpeechFormat, caller: str
    ) -> AsyncGenerator[Encoded]:
        """Yield a file of the speech, as it arrives. Closing the iterator closes `events` and ends the process.

        A WAV file has the length "unknown" in its header. Raises `Overloaded` if no slot becomes free for this caller
        in time, and `GatewayError` if the encoder fails.
        """
        prepare = None
        if _needs_process(speech_format, 0):
            prepare = asyncio.create_task(self._fork_server.prepare({"task": "encode"}))
        usage: SpeechUsage | None = None
        stream: _Stream | None = None
        try:
            async with aclosing(events):
                async for event in events:
                    if not isinstance(event, Sound):
                        usage = event
                        continue
                    if stream is None:
                        stream = await self._open(speech_format, event.sample_rate, caller)
                        if stream.header:
                            yield stream.header
                    async for data in stream.encode(event.samples):
                        yield data
            if stream is not None and (data := await stream.finish()):
                yield data
            if usage is not None:
                yield usage
        finally:
            if prepare is not None:
                prepare.cancel()
            if stream is not None and stream.job is not None:
                self._fork_server.end(stream.job)

    async def _open(self, speech_format: SpeechFormat, rate: int, caller: str) -> "_Stream":
        if not _needs_process(speech_format, rate):
            return _Stream(None, rate, wav_header(rate) if speech_format == "wav" else b"")
        check_format(speech_format, rate, param="response_format")
        try:
            await self._slots.acquire(caller, seconds=_SLOT_TIMEOUT_SECONDS)
        except TimeoutError:
            raise Overloaded(
                "Too many other answers are being encoded now; try again later.", retry_after=RETRY_AFTER_SECONDS
            ) from None
        try:
            job = await self._fork_server.begin(
                {"task": "encode", "format": speech_format}, size=0, memory=_MEMORY_BYTES, seconds=_CPU_SECONDS
            )
        except ForkServerUnavailable:
            self._slots.release(caller)
            raise Overloaded("The speech cannot be encoded now.", retry_after=RETRY_AFTER_SECONDS) from None
        except BaseException:
            self._slots.release(caller)
            raise
        job.exited.add_done_callback(lambda _: self._slots.release(caller))
        stream = _Stream(job, rate)
        await stream.begin()
        return stream


class _Stream:
    """One stream. `job` is its process; None: its samples are passed on as they are, after `header`."""

    def __init__(self, job: Job | None, rate: int, header: bytes = b"") -> None:
        self.job = job
        self.header = header
        self._rate = rate

    async def begin(self) -> None:
        await self._exchange(_RATE.pack(self._rate), answered=False)

    async def encode(self, samples: bytes) -> AsyncGenerator[bytes]:
        if self.job is None:
            yield samples
            return
        size = 2 * self._rate * _PIECE_SECONDS
        for at in range(0, len(samples), size):
            if data := await self._exchange(samples[at : at + size]):
                yield data

    async def finish(self) -> bytes:
        return await self._exchange(b"") if self.job else b""

    async def _exchange(self, message: bytes, *, answered: bool = True) -> bytes:
        assert self.job is not None
        try:
            async with asyncio.timeout(_PIECE_TIMEOUT_SECONDS):
                return await self.job.exchange(message, answered=answered)
        except TimeoutError:
            raise Overloaded("The service is too busy to encode the speech.", retry_after=RETRY_AFTER_SECONDS) from None
        except OSError:
            raise GatewayError("The encoder of the speech has failed.") from None


def check_format(speech_format: SpeechFormat, rate: int, *, param: str) -> None:
    """Raise `UnsupportedOption` if this gateway cannot encode sound of `rate` samples a second in a format."""
    if not _needs_process(speech_format, rate) or importlib.util.find_spec("av") is not None:
        return
    if speech_format == "pcm":
        raise UnsupportedOption(
            f"This model speaks with {rate} samples a second. 'pcm' has {PCM_RATE}, and resampling needs the extra "
            "'audio' (PyAV), which is not installed. Use 'wav'.",
            param=param,
        )
    raise UnsupportedOption(
        f"This gateway does not encode '{speech_format}', as its extra 'audio' (PyAV) is not installed. Use 'wav' or "
        "'pcm'.",
        param=param,
    )


def wav_header(rate: int, num_bytes: int | None = None) -> bytes:
    """Return the header of a WAV file with `num_bytes` of samples; None: unknown, as in a stream."""
    length = _UNKNOWN_LENGTH if num_bytes is None else num_bytes
    whole = _UNKNOWN_LENGTH if num_bytes is None else num_bytes + _WAV_HEADER.size - 8
    return _WAV_HEADER.pack(b"RIFF", whole, b"WAVE", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16, b"data", length)


def complete_wav(data: bytes) -> bytes:
    """Return a WAV file of a stream, which is complete now, with its length in the header."""
    (rate,) = struct.unpack_from("<I", data, 24)
    return wav_header(rate, len(data) - _WAV_HEADER.size) + data[_WAV_HEADER.size :]


def _needs_process(speech_format: SpeechFormat, rate: int) -> bool:
    """Return whether FFmpeg encodes a format; a `rate` of 0 is not known yet."""
    return speech_format != "wav" and not (speech_format == "pcm" and rate in (0, PCM_RATE))


def content_type(speech_format: SpeechFormat) -> str:
    """Return the content type of a format, as OpenAI's API writes it."""
    return CODECS[speech_format].content_type
