"""The formats of speech: those of OpenAI's API, as FFmpeg names them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

SpeechFormat: TypeAlias = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]

PCM_RATE = 24_000
"""Samples a second of the format `pcm`, which has no header that tells them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Codec:
    """A format: its content type, and FFmpeg's names and options.

    `rates` are the samples a second that the codec takes; empty: any. Sound of another rate is resampled to the next
    higher one. `options` are those of the container.
    """

    content_type: str
    container: str
    encoder: str
    bit_rate: int | None = None
    rates: tuple[int, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)

    def rate(self, given: int) -> int:
        """Return the rate of the encoded sound, for sound of `given` samples a second."""
        return min((rate for rate in self.rates if rate >= given), default=max(self.rates, default=given))


CODECS: Mapping[SpeechFormat, Codec] = {
    "mp3": Codec(
        content_type="audio/mpeg",
        container="mp3",
        encoder="libmp3lame",
        bit_rate=64_000,
        rates=(8000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000),
        # Both headers are written at the end, into the beginning of the file.
        options={"write_xing": "0", "id3v2_version": "0"},
    ),
    "opus": Codec(
        content_type="audio/opus",
        container="ogg",
        encoder="libopus",
        bit_rate=48_000,
        rates=(8000, 12_000, 16_000, 24_000, 48_000),
        options={"page_duration": "100000"},  # microseconds: what a player has to wait for
    ),
    "aac": Codec(
        content_type="audio/aac",
        container="adts",
        encoder="aac",
        bit_rate=64_000,
        rates=(8000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 64_000, 88_200, 96_000),
    ),
    "flac": Codec(content_type="audio/flac", container="flac", encoder="flac"),
    "wav": Codec(content_type="audio/wav", container="wav", encoder="pcm_s16le"),
    "pcm": Codec(content_type="audio/pcm", container="s16le", encoder="pcm_s16le", rates=(PCM_RATE,)),
}
