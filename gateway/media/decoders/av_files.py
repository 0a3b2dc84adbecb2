"""Reading of the streams of a file with FFmpeg, which recordings and videos share."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import av

DECLARED_LENGTH_TOLERANCE = 1.1
"""A file whose declared length exceeds the limit by this factor is refused at once. Such lengths may be estimates."""


def declared_seconds(file: "av.container.InputContainer", stream: Any) -> float | None:
    """Return the length of a stream as the file declares it; None: it does not."""
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return None if file.duration is None else file.duration / 1_000_000


def decode_frames(file: "av.container.InputContainer", stream: Any) -> Iterator[Any]:
    """Yield the frames of a stream. Damaged packets are skipped, and a truncated file ends where its data end.

    Raises `av.FFmpegError` if no frame can be decoded.
    """
    import av

    failure: av.FFmpegError | None = None
    found = False
    packets = file.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError as error:
            failure, packet = error, None
        if packet is None:
            break
        try:
            frames = packet.decode()
        except av.FFmpegError as error:
            failure = error
            continue
        for frame in frames:
            found = True
            yield frame
    if failure and not found:
        raise failure
