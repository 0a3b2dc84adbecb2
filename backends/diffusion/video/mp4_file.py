"""Encoding of frames to an MP4 file, by the libraries of FFmpeg (PyAV)."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from backends.serving.images import Pixels

_log = logging.getLogger(__name__)

DEFAULT_QUALITY = 75
_MAX_THREADS = 4
"""Threads of an encoder. More make a small video no faster."""
_BT709 = 1
"""The number of BT.709 in FFmpeg's lists of colour spaces, primaries and transfer functions."""
_LIMITED_RANGE = 1


@dataclass(frozen=True, slots=True)
class Encoder:
    """An encoder of FFmpeg: its options, and the one that takes the quality.

    `worst` and `best` are the values of that option for the qualities 0 and 100.
    """

    quality_option: str
    worst: int
    best: int
    options: Mapping[str, str]

    def all_options(self, quality: int) -> dict[str, str]:
        """Return the options for a quality from 0 to 100."""
        value = round(self.worst + (self.best - self.worst) * quality / 100)
        return {**self.options, self.quality_option: str(value)}


ENCODERS: Mapping[str, Encoder] = {
    "h264_nvenc": Encoder("cq", 40, 10, {"rc": "vbr", "b": "0", "preset": "p5"}),
    "libx264": Encoder("crf", 40, 10, {"preset": "veryfast"}),
    "libsvtav1": Encoder("crf", 58, 12, {"preset": "9"}),
    "libvpx-vp9": Encoder("crf", 55, 10, {"b": "0", "deadline": "realtime", "cpu-used": "6"}),
}
"""The encoders by their names in FFmpeg, in the order of preference: of the codecs of these, H.264 plays everywhere."""

# Otherwise SVT-AV1 writes a page about itself into the log for each video. It reads the variable when it is opened.
os.environ.setdefault("SVT_LOG", "1")


def find_encoders(setting: str) -> tuple[str, ...]:
    """Return the encoders that a setting allows, from the first that works here on.

    `setting` is the name of an encoder, or `auto` for all in the order of preference. Raises `ValueError` with a
    sentence if the name is unknown or no encoder works.
    """
    if setting != "auto" and setting not in ENCODERS:
        raise ValueError(f"The video encoder {setting!r} is not known; there are auto, {', '.join(ENCODERS)}.")
    names = tuple(ENCODERS) if setting == "auto" else (setting,)
    failures = []
    for number, name in enumerate(names):
        try:
            with Mp4File((256, 256), 8, (name,)) as file:
                file.add(np.zeros((2, 256, 256, 3), np.uint8))
                file.finish()
        except Exception as error:
            failures.append(f"{name}: {error}")
        else:
            return names[number:]
    raise ValueError(f"No video encoder works: {'; '.join(failures)}.")


class Mp4File:
    """One MP4 that is being written, in memory of the kernel: no file is left behind if the process is killed.

    The colours are BT.709 with limited range and 4:2:0, which every player takes. Sides that are odd grow by one pixel,
    which repeats the last one. Use it in a `with` block or call `close`. Not thread-safe.
    """

    def __init__(
        self, size: tuple[int, int], fps: int, encoders: Sequence[str], quality: int = DEFAULT_QUALITY
    ) -> None:
        """Open the first of `encoders` that takes frames of `size`, a width and a height in pixels.

        Raises `av.FFmpegError` of the last one if none does.
        """
        self.size = size[0] + size[0] % 2, size[1] + size[1] % 2
        """Width and height of the video, in pixels."""
        self._padding = [(0, 0), (0, size[1] % 2), (0, size[0] % 2), (0, 0)]
        self._file = os.memfd_create("video.mp4", os.MFD_CLOEXEC)
        self._container: Any = None
        try:
            self._open_first(fps, encoders, quality)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Mp4File":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def add(self, frames: Pixels) -> None:
        """Append frames, uint8[n, height, width, 3]. Raises `av.FFmpegError`."""
        for pixels in np.pad(frames, self._padding, "edge"):
            # Its colours are full-range RGB; without the target FFmpeg takes the coefficients of BT.601.
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
                format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
            )
            self._mux(frame)

    def finish(self) -> bytes:
        """Return the file, with its index at the beginning. Raises `av.FFmpegError`."""
        self._mux(None)
        self._container.close()
        self._container = None
        return Path(self._path).read_bytes()

    def close(self) -> None:
        """Free the file and the encoder. May be called several times."""
        container, self._container = self._container, None
        if container is not None:
            container.close()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    @property
    def _path(self) -> str:
        return f"/proc/self/fd/{self._file}"

    def _open_first(self, fps: int, encoders: Sequence[str], quality: int) -> None:
        for name in encoders:
            try:
                return self._open(fps, name, quality)
            except av.FFmpegError as error:
                if name == encoders[-1]:
                    raise
                _log.warning("The video encoder %s takes no video of %dx%d: %s", name, *self.size, error)

    def _open(self, fps: int, name: str, quality: int) -> None:
        # To move the index to the beginning FFmpeg opens the finished file a second time, by its path.
        container = av.open(self._path, "w", format="mp4", options={"movflags": "+faststart"})
        try:
            stream: Any = container.add_stream(name, rate=fps)
            stream.width, stream.height = self.size
            stream.pix_fmt = "yuv420p"
            stream.options = ENCODERS[name].all_options(quality)
            context = stream.codec_context
            context.thread_count = min(_MAX_THREADS, len(os.sched_getaffinity(0)))
            context.color_range = _LIMITED_RANGE
            context.colorspace = context.color_primaries = context.color_trc = _BT709
            context.open()
        except BaseException:
            container.close()
            raise
        self._container, self._stream = container, stream

    def _mux(self, frame: Any) -> None:
        for packet in self._stream.encode(frame):
            self._container.mux(packet)
