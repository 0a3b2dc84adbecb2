"""Videos that requests start from: what is read of them, and what is refused."""

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from gateway.errors import InvalidRequest, UnsupportedOption
from gateway.media.loader import MediaLoader
from gateway.media.spool import SpoolFile
from gateway.media.videos import Clip
from tests.fakes.image_model import color_of_seed
from tests.fakes.video_model import noise_video, video_file


@pytest.fixture
def read(make_media: Callable[..., MediaLoader]) -> Iterator[Any]:
    """Return a function that reads the clip of a file."""
    spools: list[SpoolFile] = []

    async def read(
        data: bytes,
        *,
        size: tuple[int, int] = (64, 64),
        fps: int = 8,
        max_frames: int = 33,
        **settings: Any,
    ) -> Clip:
        media = make_media(**settings)
        media.videos._pool._wall_timeout = 120.0  # the machine may be busy
        spool = media.uploads.new_spool("caller")
        spools.append(spool)
        await spool.write(data)
        await spool.finish()
        clip = await media.videos.read_clip(
            spool,
            size=size,
            fps=fps,
            max_frames=max_frames,
            param="video",
            caller="caller",
        )
        spools.append(clip.frames)
        return clip

    yield read
    for spool in spools:
        spool.close()


def files(clip: Clip) -> list[bytes]:
    """Return the frames of a clip."""
    with os.fdopen(clip.frames.open(), "rb") as file:
        data = file.read()
    found, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "little")
        found.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    assert at == len(data) and len(found) == clip.count
    return found


def pictures(clip: Clip) -> list[Any]:
    return [Image.open(io.BytesIO(frame)) for frame in files(clip)]


def is_near(pixel: Any, colour: tuple[int, int, int], distance: int = 14) -> bool:
    return max(abs(a - b) for a, b in zip(pixel, colour, strict=True)) <= distance


@pytest.mark.parametrize(
    ("container", "codec"),
    [("mp4", "libx264"), ("mov", "mpeg4"), ("webm", "libvpx-vp9"), ("matroska", "libx264"), ("avi", "mpeg4")],
)
async def test_frames_of_each_container(read: Any, container: str, codec: str) -> None:
    clip = await read(video_file((96, 64), 16, 8, seed=3, container=container, codec=codec), size=(96, 64))
    assert clip.count == 16 and not clip.is_cut
    for index, picture in enumerate(pictures(clip)):
        assert (picture.format, picture.size) == ("JPEG", (96, 64))
        bar = 92 * index // 15
        assert is_near(picture.getpixel((48 if bar < 30 or bar > 60 else 10, 30)), color_of_seed(3), 32)
        assert min(picture.getpixel((bar + 2, 30))) > 150, index


@pytest.mark.parametrize(
    ("fps", "count", "picks"), [(8, 16, range(16)), (4, 8, range(0, 16, 2)), (16, 32, [i // 2 for i in range(32)])]
)
async def test_frames_are_picked_by_time(read: Any, fps: int, count: int, picks: list[int]) -> None:
    source = video_file((64, 64), 16, 8, codec="libx264")
    every, picked = await read(source), await read(source, fps=fps)
    assert picked.count == count and not picked.is_cut
    assert files(picked) == [files(every)[at] for at in picks]


async def test_a_long_video_is_cut(read: Any) -> None:
    clip = await read(video_file((64, 64), 16, 8), max_frames=15)
    assert clip.count == 15 and clip.is_cut
    assert not (await read(video_file((64, 64), 16, 8), max_frames=16)).is_cut


async def test_a_picture_covers_the_size_and_is_cropped_at_the_centre(read: Any) -> None:
    pixels = np.zeros((80, 160, 3), np.uint8)
    pixels[:, :40], pixels[:, 40:120], pixels[:, 120:] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    clip = await read(raw_video(pixels), size=(64, 64))
    (picture, *_) = pictures(clip)
    assert all(is_near(picture.getpixel((x, 32)), (0, 255, 0), 40) for x in (3, 32, 60))


async def test_a_video_is_turned_upright(read: Any) -> None:
    """Phones store what they film upright as a turned video."""
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[:32] = (255, 0, 0)
    clip = await read(raw_video(pixels, is_turned=True), size=(64, 96))
    picture = pictures(clip)[0]
    left, right = picture.getpixel((6, 48)), picture.getpixel((58, 48))
    assert {is_near(left, (255, 0, 0), 40), is_near(right, (255, 0, 0), 40)} == {True, False}


def raw_video(pixels: np.ndarray[Any, Any], *, is_turned: bool = False) -> bytes:
    """Return a video of four equal frames; players turn it by a quarter if it `is_turned`."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        stream = output.add_stream("libx264", rate=8, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = pixels.shape[1], pixels.shape[0], "yuv444p"
        for _ in range(4):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        output.mux(stream.encode(None))
    data = file.getvalue()
    if is_turned:
        # The matrix of the track header (ISO/IEC 14496-12, 8.3.2), after 40 bytes of its body.
        at = data.index(b"tkhd") + 4 + 40
        quarter = b"\0\0\0\0" + b"\0\1\0\0" + bytes(4) + b"\xff\xff\0\0" + bytes(8) + bytes(8) + b"\x40\0\0\0"
        data = data[:at] + quarter + data[at + 36 :]
    return data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda: b"", "is empty"),
        (lambda: b"Hello, this is no video. " * 50, "got text"),
        (lambda: Image.new("RGB", (8, 8)).tobytes(), "got text"),
        (lambda: video_file(audio_only=True), "no video stream"),
        (lambda: video_file()[:1500], "damaged"),
        (lambda: video_file()[:2000], "truncated"),
        (lambda: video_file(container="webm", codec="libvpx-vp9")[:787], "truncated"),
        (lambda: video_file((16, 16), 3600, 1, codec="mpeg4"), "longer than the limit of 600 seconds"),
        (lambda: video_file((7680, 4320), 1, 8, codec="mpeg4"), "7680 × 4320 pixels"),  # noqa: RUF001
        (lambda: video_file((64, 64), 4, 8, container="matroska", codec="rawvideo"), "codec"),
        (lambda: video_file()[:60] + bytes(3000), "no video stream"),
    ],
    ids=["empty", "text", "noise", "sound", "half", "cut-mp4", "cut-webm", "hour", "8k", "codec", "zeros"],
)
async def test_files_that_are_refused(read: Any, data: Callable[[], bytes], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message) as refused:
        await read(data())
    assert refused.value.param == "video" and refused.value.message.startswith("Invalid value for 'video':")


async def test_limits_of_settings(read: Any) -> None:
    with pytest.raises(InvalidRequest, match="larger than the limit of 1000 bytes"):
        await read(video_file(), video_max_bytes=1000)
    with pytest.raises(InvalidRequest, match="longer than the limit of 1 seconds"):
        await read(video_file(), video_max_seconds=1)
    with pytest.raises(InvalidRequest, match="limit is 4000 pixels"):
        await read(video_file(), video_max_pixels=4000)
    with pytest.raises(InvalidRequest, match="more than 0 MiB"):
        await read(video_file(), video_frames_max_bytes=3000)


async def test_a_video_that_takes_too_long(read: Any) -> None:
    many = video_file((640, 640), 600, 60, codec="mpeg4")
    with pytest.raises(InvalidRequest, match=r"could not be decoded within 0\.05 seconds"):
        await read(many, fps=60, max_frames=600, size=(640, 640), video_timeout=0.05)


async def test_a_bomb_of_memory(read: Any) -> None:
    """Headers that declare much larger frames than the file has are checked before the first one is decoded."""
    data = bytearray(video_file((64, 64), 4, 8, container="gif", codec="gif"))
    assert (await read(bytes(data))).count >= 4
    data[6:10] = (16_000).to_bytes(2, "little") * 2
    with pytest.raises(InvalidRequest, match="16000 × 16000 pixels"):  # noqa: RUF001
        await read(bytes(data))


async def test_frames_are_on_disk(read: Any, tmp_path: Path) -> None:
    """They do not take memory: those of a large video have hundreds of megabytes."""
    clip = await read(noise_video((640, 360), 9), size=(640, 360), state=tmp_path)
    assert clip.frames.size > 2_000_000 and len(files(clip)) == 9
    assert (tmp_path / "uploads").is_dir()


async def test_the_last_frame(make_media: Callable[..., MediaLoader]) -> None:
    media = make_media()
    spool = media.uploads.new_spool("caller")
    await spool.write(video_file((96, 64), 16, 8, seed=3))
    await spool.finish()
    data = await media.videos.last_frame(spool, size=(96, 64), param="video", caller="caller")
    spool.close()
    picture: Any
    with Image.open(io.BytesIO(data)) as picture:
        assert (picture.format, picture.size) == ("PNG", (96, 64)) and min(picture.getpixel((94, 30))) > 200


async def test_previews_and_clips_name_the_extra_where_pyav_is_not_installed(
    read: Any, make_media: Callable[..., MediaLoader], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    media = make_media()
    spool = media.uploads.new_spool("caller")
    await spool.write(video_file())
    await spool.finish()
    with pytest.raises(UnsupportedOption, match="extra 'audio'") as refused:
        await media.videos.preview(spool, "thumbnail", caller="caller")
    spool.close()
    assert refused.value.param == "variant"
    with pytest.raises(InvalidRequest, match="extra 'audio'"):
        await read(video_file())


async def test_a_first_frame_is_upright_and_opaque(media: Any) -> None:
    async def first_frame(data: bytes, size: tuple[int, int]) -> bytes:
        with media.new_budget("caller") as budget:
            return await media.load_first_frame(data, size, param="p", budget=budget)

    turned = Image.new("RGB", (40, 80), "red")
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter to the right
    file = io.BytesIO()
    turned.paste("blue", (0, 40, 40, 80))
    turned.save(file, "JPEG", exif=exif, quality=95, subsampling=0)
    first = await first_frame(file.getvalue(), (80, 40))
    with Image.open(io.BytesIO(first)) as picture:
        assert picture.size == (80, 40)
        assert is_near(picture.getpixel((70, 20)), (255, 0, 0)) and is_near(picture.getpixel((10, 20)), (0, 0, 255))
    file = io.BytesIO()
    Image.new("RGBA", (64, 64), (255, 0, 0, 0)).save(file, "PNG")
    clear = await first_frame(file.getvalue(), (32, 32))
    with Image.open(io.BytesIO(clear)) as picture:
        assert (picture.mode, picture.getpixel((16, 16))) == ("RGB", (255, 255, 255))
    with pytest.raises(InvalidRequest, match="damaged or truncated"):
        await first_frame(file.getvalue()[:50], (32, 32))
    with pytest.raises(InvalidRequest, match="expected an image"):
        await first_frame(b"text" * 20, (32, 32))
