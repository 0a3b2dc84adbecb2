"""The encoder of one stream of speech, and the protocol of the child process that runs it.

Both directions have messages with a length before each. The first message of the gateway is the sample rate. Each
further one has samples, and an empty one ends the stream. The child answers each message with samples, and the empty
one, by the bytes that the encoder has finished with it.
"""

import socket
import struct
from typing import Any

import av

from gateway.media.encoders.formats import CODECS, SpeechFormat

LENGTH = struct.Struct("!I")
"""Prefix of a message: its length in bytes."""
RATE = struct.Struct("!I")
"""The first message."""


class _Pipe:
    """A file that takes what the container writes, and cannot seek."""

    name = "speech"

    def __init__(self) -> None:
        self.written = bytearray()

    def write(self, data: bytes) -> int:
        self.written += bytes(data)
        return len(data)


class StreamEncoder:
    """Encodes mono int16 samples as they come."""

    def __init__(self, speech_format: SpeechFormat, rate: int) -> None:
        """`rate` is the number of samples a second. Raises `av.FFmpegError`."""
        codec = CODECS[speech_format]
        self._rate, self._position = rate, 0
        self._pipe = _Pipe()
        self._container: Any = av.open(self._pipe, "w", format=codec.container, options=dict(codec.options))
        stream: Any = self._container.add_stream(codec.encoder, rate=codec.rate(rate), layout="mono")
        self._stream = stream
        if codec.bit_rate is not None:
            self._stream.bit_rate = codec.bit_rate
        self._frames = av.AudioResampler(
            format=self._stream.format.name,
            layout="mono",
            rate=codec.rate(rate),
            frame_size=self._frame_size(),
        )

    def encode(self, samples: bytes) -> bytes:
        """Return the bytes that are finished after these samples. Raises `av.FFmpegError`."""
        frame = av.AudioFrame(format="s16", layout="mono", samples=len(samples) // 2)
        frame.planes[0].update(samples)
        frame.sample_rate, frame.pts = self._rate, self._position
        self._position += frame.samples
        self._write(frame)
        return self._take()

    def finish(self) -> bytes:
        """Return the last bytes. Raises `av.FFmpegError`."""
        self._write(None)
        for packet in self._stream.encode(None):
            self._container.mux(packet)
        self._container.close()
        return self._take()

    def _frame_size(self) -> int | None:
        """Return the samples of a frame; None: a codec that takes any number."""
        self._stream.codec_context.open()
        return self._stream.codec_context.frame_size or None

    def _write(self, frame: Any) -> None:
        for ready in self._frames.resample(frame):
            for packet in self._stream.encode(ready):
                self._container.mux(packet)

    def _take(self) -> bytes:
        data = bytes(self._pipe.written)
        self._pipe.written.clear()
        return data


def serve(connection: socket.socket, speech_format: SpeechFormat) -> None:
    """Encode one stream from a connection, until its end. Raises `EOFError` if the gateway closes it before."""
    (rate,) = RATE.unpack(_receive(connection))
    encoder = StreamEncoder(speech_format, rate)
    while samples := _receive(connection):
        _send(connection, encoder.encode(samples))
    _send(connection, encoder.finish())


def _receive(connection: socket.socket) -> bytes:
    (length,) = LENGTH.unpack(_receive_exactly(connection, LENGTH.size))
    return _receive_exactly(connection, length)


def _receive_exactly(connection: socket.socket, count: int) -> bytes:
    data = connection.recv(count, socket.MSG_WAITALL) if count else b""
    if len(data) < count:
        raise EOFError("the gateway has closed the connection")
    return data


def _send(connection: socket.socket, data: bytes) -> None:
    connection.sendall(LENGTH.pack(len(data)) + data)
