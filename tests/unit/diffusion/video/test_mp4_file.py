"""MP4 files: what players need of them, odd sides, the quality, and encoders that do not work."""

import io
import os
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from backends.diffusion.video.mp4_file import ENCODERS, Mp4File, find_encoders
from tests.unit.diffusion.video.tiny_video import has_nvenc, read_video

ON_CPUS = [name for name in ENCODERS if name != "h264_nvenc"]
COLORS = ((230, 30, 30), (10, 200, 60), (40, 60, 220), (250, 240, 200))


def movie(width: int, height: int, frames: int = 17) -> Any:
    """Return frames of four coloured stripes, and a bright square that moves over them."""
    pixels = np.zeros((frames, height, width, 3), np.uint8)
    for number, color in enumerate(COLORS):
        pixels[:, number * height // 4 : (number + 1) * height // 4] = color
    for number in range(frames):
        pixels[number, 8:16, number : number + 8] = 255
    return pixels


def encode(pixels: Any, encoders: tuple[str, ...] = ("libx264",), fps: int = 8, **options: Any) -> bytes:
    with Mp4File((pixels.shape[2], pixels.shape[1]), fps, encoders, **options) as file:
        for start in range(0, len(pixels), 4):
            file.add(pixels[start : start + 4])
        return file.finish()


@pytest.mark.parametrize("encoder", ON_CPUS)
@pytest.mark.parametrize("size", [(64, 64), (96, 48), (16, 16)])
def test_frames_colours_and_duration_are_those_that_were_written(encoder: str, size: tuple[int, int]) -> None:
    pixels = movie(*size)
    file = encode(pixels, (encoder,), quality=95)
    frames, seconds, _ = read_video(file)
    assert frames.shape == pixels.shape
    assert seconds == pytest.approx(17 / 8)
    stripes = np.s_[::4, size[1] // 8 :: size[1] // 4, -3]
    if size != (16, 16):  # there the stripes are as narrow as the colours are coarse
        assert np.abs(frames[stripes].astype(int) - pixels[stripes]).max() < 12
    with av.open(io.BytesIO(file), "r") as container:
        context: Any = container.streams.video[0].codec_context
        assert context.pix_fmt == "yuv420p"
        assert (context.colorspace, context.color_range, context.color_primaries, context.color_trc) == (1, 1, 1, 1)


@pytest.mark.parametrize("encoder", ON_CPUS)
def test_the_index_is_at_the_beginning(encoder: str) -> None:
    file = encode(movie(64, 64), (encoder,))
    assert file[4:8] == b"ftyp"
    assert 0 < file.find(b"moov") < file.find(b"mdat")


def test_odd_sides_grow_by_one_pixel() -> None:
    pixels = movie(63, 37)
    with Mp4File((63, 37), 8, ("libx264",), 95) as file:
        file.add(pixels)
        assert file.size == (64, 38)
        frames = read_video(file.finish())[0]
    assert frames.shape == (17, 38, 64, 3)
    assert np.abs(frames[:, -1].astype(int) - frames[:, -2]).mean() < 6


def test_the_quality_determines_the_size_of_the_file() -> None:
    noise = np.random.default_rng(1).integers(0, 255, (9, 64, 64, 3), np.uint8)
    for encoder in ON_CPUS:
        sizes = [len(encode(noise, (encoder,), quality=quality)) for quality in (0, 50, 100)]
        assert sizes[0] < sizes[1] < sizes[2]


def test_a_single_frame_is_a_video() -> None:
    frames, seconds, _ = read_video(encode(movie(64, 64, 1)))
    assert (len(frames), seconds) == (1, 1 / 8)


@pytest.mark.skipif(has_nvenc(), reason="NVENC works here")
def test_the_next_encoder_takes_the_place_of_one_that_does_not_open() -> None:
    assert find_encoders("auto")[0] == "libx264"
    assert read_video(encode(movie(64, 64), ("h264_nvenc", "libsvtav1")))[2] == "av1"
    with pytest.raises(av.FFmpegError):
        encode(movie(64, 64), ("h264_nvenc",))


@pytest.mark.skipif(has_nvenc(), reason="NVENC works here")
def test_no_file_stays_open() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    encode(movie(64, 64))
    file = Mp4File((64, 64), 8, ("libx264",))
    file.add(movie(64, 64))
    file.close()
    file.close()
    with pytest.raises(av.FFmpegError):
        Mp4File((64, 64), 8, ("h264_nvenc",))
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert os.environ["SVT_LOG"] == "1"
