"""The frames of a video that a model changes."""

import struct
from collections.abc import Iterator
from fractions import Fraction
from io import BytesIO
from typing import IO, TYPE_CHECKING, Any

from gateway.media.decoders.pictures import cover
from gateway.media.decoders.video import VideoDecoder, upright
from gateway.media.invalid_media import InvalidMedia

if TYPE_CHECKING:
    import av

FRAME_PREFIX = struct.Struct("<I")
"""Prefix of an encoded frame: its length. Models take frames in this form."""
_ROUNDING = Fraction(1, 1000)
"""Seconds by which the times of frames may be rounded."""
_QUALITY = 95
"""Quality of frames, JPEG without chroma subsampling: 0.4 % of the range away from the source on average."""


class ClipReader:
    """Iterates over the frames of a video at times k / `fps`: JPEG files of `width` × `height` pixels, with prefixes.

    The pictures are scaled until they cover that size, and cropped at the centre. `max_frames` ends the reading.
    """  # noqa: RUF002

    def __init__(self, source: IO[bytes], task: dict[str, Any]) -> None:
        """`task` has these options, the `container`, and the limits `max_seconds`, `max_pixels` and `max_bytes`.

        Raises as `VideoDecoder` does.
        """
        self._decoder = VideoDecoder(
            source, task["container"], max_seconds=task["max_seconds"], max_pixels=task["max_pixels"]
        )
        self._size = task["width"], task["height"]
        self._fps, self._max_frames = task["fps"], task["max_frames"]
        self._max_bytes = task["max_bytes"]
        self._bytes = 0
        self.count = 0
        """The number of frames so far."""
        self.more = False
        """True if the video goes on."""

    def __iter__(self) -> Iterator[bytes]:
        """Yield the frames. Raises as `VideoDecoder` does, and `InvalidMedia` for more than `max_bytes` bytes."""
        current: av.VideoFrame | None = None
        picture = b""
        for end, frame in self._spans():
            while current is not None and Fraction(self.count, self._fps) < end - _ROUNDING:
                if self.count == self._max_frames:
                    self.more = True
                    return
                picture = picture or self._encode(current)
                yield self._add(picture)
            if frame is not None:
                current, picture = frame, b""

    def _spans(self) -> Iterator[tuple[Fraction, "av.VideoFrame | None"]]:
        """Yield the times at which frames begin, and the frames; then the time at which the last one ends."""
        yield from self._decoder
        yield max(self._decoder.end, 2 * _ROUNDING), None

    def _add(self, picture: bytes) -> bytes:
        self.count += 1
        self._bytes += FRAME_PREFIX.size + len(picture)
        if self._bytes > self._max_bytes:
            raise InvalidMedia(f"its frames have more than {self._max_bytes // 2**20} MiB")
        return FRAME_PREFIX.pack(len(picture)) + picture

    def _encode(self, frame: "av.VideoFrame") -> bytes:
        file = BytesIO()
        cover(upright(frame, self._size), self._size).save(file, "JPEG", quality=_QUALITY, subsampling=0)
        return file.getvalue()
