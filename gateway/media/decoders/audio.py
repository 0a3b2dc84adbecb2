"""Decoding of audio into samples."""

from collections.abc import Iterator
from io import BytesIO
from typing import IO, TYPE_CHECKING, Any

from gateway.media.decoders.av_files import DECLARED_LENGTH_TOLERANCE, declared_seconds, decode_frames
from gateway.media.invalid_media import InvalidMedia

if TYPE_CHECKING:
    import av

SAMPLE_RATE = 16_000
"""Samples a second."""


def decode_audio(data: bytes, container: str, *, max_seconds: float) -> bytes:
    """Return mono float32 samples, little-endian, at `SAMPLE_RATE`. `container` is FFmpeg's name of the format.

    Raises `InvalidMedia`, and `av.FFmpegError` for damaged files.
    """
    return b"".join(AudioDecoder(BytesIO(data), container, max_seconds=max_seconds))


class AudioDecoder:
    """Iterates over the samples of the first audio track of a file, a few thousand at a time.

    Damaged packets are skipped, and a truncated file ends where its data end, as long as some of it can be decoded.
    """

    def __init__(self, source: IO[bytes], container: str, *, max_seconds: float) -> None:
        """Open a file. `container` is FFmpeg's name of the format.

        Raises `InvalidMedia` if the file has no audio track, and `av.FFmpegError` for a damaged one.
        """
        import av

        self._max_seconds = max_seconds
        # FFmpeg must not guess the format: some formats are lists of other files and URLs, which it would open.
        self._file = av.open(source, "r", format=container)
        if not self._file.streams.audio:
            raise InvalidMedia("the file has no audio track")
        self._stream = self._file.streams.audio[0]
        declared = self.total_seconds
        if declared is not None and declared > DECLARED_LENGTH_TOLERANCE * max_seconds:
            raise _too_long(max_seconds)
        self._may_have_nan = self._stream.codec_context.name.startswith("pcm_f")
        self._mixer_format: tuple[Any, ...] = ()
        self._mixer: av.AudioResampler | None = None
        self._converter = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)

    @property
    def total_seconds(self) -> float | None:
        """The length of the track as the file declares it; None: it does not."""
        return declared_seconds(self._file, self._stream)

    def __iter__(self) -> Iterator[bytes]:
        """Yield samples. Raises `InvalidMedia` if there are none or too many, `av.FFmpegError` if all are damaged."""
        limit = int(self._max_seconds * SAMPLE_RATE) * 4
        found = 0
        with self._file:
            for frame in self._frames():
                for samples in self._convert(frame):
                    found += len(samples)
                    if found > limit:
                        raise _too_long(self._max_seconds)
                    yield samples
        if not found:
            raise InvalidMedia("the audio track is empty")

    def _frames(self) -> Iterator["av.AudioFrame | None"]:
        """Yield the frames, and None at the end."""
        yield from decode_frames(self._file, self._stream)
        yield None

    def _convert(self, frame: "av.AudioFrame | None") -> Iterator[bytes]:
        """Yield the samples of a frame; None: those that are left in the filters."""
        import av

        mixed: list[Any] = []
        frame_format = (frame.format.name, frame.layout.name, frame.sample_rate) if frame else ()
        if self._mixer and frame_format != self._mixer_format:
            mixed += self._mixer.resample(None)
            self._mixer = None
        if frame:
            if self._mixer is None:
                # FFmpeg mixes integers without overflow, as the training data of speech models were mixed, but floats
                # louder.
                self._mixer = av.AudioResampler(format="s32", layout="mono", rate=SAMPLE_RATE)
                self._mixer_format = frame_format
            if self._may_have_nan:
                _replace_nan(frame)
            mixed += self._mixer.resample(frame)
        for part in mixed:
            part.pts = None
            for converted in self._converter.resample(part):
                yield bytes(converted.planes[0])[: converted.samples * 4]


def _too_long(max_seconds: float) -> InvalidMedia:
    return InvalidMedia(f"the audio is longer than the limit of {max_seconds:g} seconds")


def _replace_nan(frame: "av.AudioFrame") -> None:
    """Replace samples that are no numbers by silence, and infinite ones by the loudest: FFmpeg makes all loud."""
    import numpy as np  # few files need it

    for plane in frame.planes:
        values = np.frombuffer(bytes(plane), np.float64 if "dbl" in frame.format.name else np.float32)
        if not np.isfinite(values).all():
            plane.update(np.nan_to_num(values, nan=0.0, posinf=1.0, neginf=-1.0).tobytes())
