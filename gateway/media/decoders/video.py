"""Decoding of videos: the frames that a model starts from, and previews of stored videos."""

from collections.abc import Iterator
from fractions import Fraction
from io import BytesIO
from typing import IO, TYPE_CHECKING, Any

from gateway.media.decoders.av_files import DECLARED_LENGTH_TOLERANCE, declared_seconds, decode_frames
from gateway.media.decoders.pictures import cover
from gateway.media.invalid_media import InvalidMedia

if TYPE_CHECKING:
    import av
    from PIL import Image

_CODECS = frozenset(
    [
        *("av1", "libdav1d", "libaom-av1", "dnxhd", "flv", "gif", "h263", "h264", "hevc", "mjpeg", "mpeg1video"),
        *("mpeg2video", "mpeg4", "msmpeg4", "msmpeg4v2", "prores", "theora", "vc1", "vp6", "vp6f", "vp8", "vp9"),
        *("libvpx", "libvpx-vp9", "wmv1", "wmv2", "wmv3", "ffv1"),
    ]
)
"""FFmpeg's names of the decoders that may read a file. The others are rare, and some have never been hardened."""
_ATTACHED_PICTURE = 0x400
"""FFmpeg's flag of a stream that is the cover of a recording."""
_MISSING_SHARE = 0.1
"""Part of the declared length that may be missing at the end."""
_THUMBNAIL_SIDE = 640
_TILE_SIDE = 256
"""Longest side of a thumbnail, and of a picture of a sprite sheet, in pixels."""
_MAX_TILES = 16
_PREVIEW_QUALITY = 85


class VideoDecoder:
    """Iterates over the frames of the first video stream of a file, upright, with their times in seconds from 0.

    Damaged packets are skipped, and a truncated file ends where its data end, as long as some of it can be decoded.
    """

    def __init__(self, source: IO[bytes], container: str, *, max_seconds: float, max_pixels: int) -> None:
        """Open a file. `container` is FFmpeg's name of the format. `max_pixels` limits one frame.

        Raises `InvalidMedia` if the file has no video stream, or exceeds a limit, and `av.FFmpegError` for a damaged
        one.
        """
        import av

        self._max_seconds, self._max_pixels = max_seconds, max_pixels
        # FFmpeg must not guess the format: some formats are lists of other files and URLs, which it would open.
        self._file = av.open(source, "r", format=container)
        streams = [s for s in self._file.streams.video if not int(s.disposition) & _ATTACHED_PICTURE]
        if not streams:
            raise InvalidMedia("the file has no video stream")
        self._stream = stream = streams[0]
        codec = stream.codec_context
        if codec is None or codec.name not in _CODECS:
            raise InvalidMedia("the codec of the video is not supported")
        self._check_size(codec.width, codec.height)
        declared = self.declared_seconds
        if declared is not None and declared > DECLARED_LENGTH_TOLERANCE * max_seconds:
            raise self._too_long()
        stream.thread_type = "NONE"  # a thread takes memory, and the time of all threads counts
        codec.thread_count = 1
        self._expected_end = declared if len(self._file.streams) == 1 or stream.duration is not None else None
        self._frame_seconds = 1 / Fraction(stream.average_rate or stream.guessed_rate or 25)
        self.end = Fraction(0)
        """The time at which the last frame ends, once the frames have been read."""

    @property
    def declared_seconds(self) -> float | None:
        """The length of the video as the file declares it; None: it does not."""
        return declared_seconds(self._file, self._stream)

    def __iter__(self) -> Iterator[tuple[Fraction, "av.VideoFrame"]]:
        """Yield times and frames. Raises `InvalidMedia` if there are none or they exceed a limit, and
        `av.FFmpegError` if all are damaged.
        """
        start: Fraction | None = None
        with self._file:
            for frame in decode_frames(self._file, self._stream):
                self._check_size(frame.width, frame.height)
                time = self.end
                if frame.pts is not None and frame.time_base:
                    stamp = Fraction(frame.pts) * frame.time_base
                    start = stamp if start is None else start
                    time = max(Fraction(0), stamp - start)
                if time > self._max_seconds:
                    raise self._too_long()
                length = Fraction(frame.duration) * frame.time_base if frame.duration and frame.time_base else 0
                self.end = time + (length if 0 < length <= 60 else self._frame_seconds)
                yield time, frame
        if not self.end:
            raise InvalidMedia("the video has no frames")
        end, expected = float(self.end), self._expected_end
        if expected and expected - end > max(2 * float(self._frame_seconds), _MISSING_SHARE * expected):
            raise InvalidMedia(f"the video ends after {end:.3g} of {expected:.3g} seconds: it is truncated")

    def _check_size(self, width: int, height: int) -> None:
        if width * height > self._max_pixels:
            raise InvalidMedia(
                f"a frame has {width} × {height} pixels; the limit is {self._max_pixels} pixels in all"  # noqa: RUF001
            )

    def _too_long(self) -> InvalidMedia:
        return InvalidMedia(f"the video is longer than the limit of {self._max_seconds:g} seconds")


def last_frame(source: IO[bytes], task: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Return the last frame of a video as a PNG of `width` × `height` pixels. Raises as `VideoDecoder` does."""  # noqa: RUF002
    decoder = VideoDecoder(source, task["container"], max_seconds=task["max_seconds"], max_pixels=task["max_pixels"])
    last: av.VideoFrame | None = None
    for _, frame in decoder:
        last = frame
    assert last is not None  # else the decoder has raised
    size = task["width"], task["height"]
    file = BytesIO()
    cover(upright(last, size), size).save(file, "PNG")
    return {}, file.getvalue()


def preview(source: IO[bytes], task: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Return the preview `variant` of a video: `thumbnail`, its first frame as WebP, or `spritesheet`, a JPEG with up
    to 16 of its frames in rows, evenly distributed. Raises as `VideoDecoder` does.
    """
    decoder = VideoDecoder(source, task["container"], max_seconds=task["max_seconds"], max_pixels=task["max_pixels"])
    file = BytesIO()
    if task["variant"] == "thumbnail":
        _, frame = next(iter(decoder))
        picture = upright(frame, (_THUMBNAIL_SIDE, _THUMBNAIL_SIDE))
        picture.thumbnail((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE))
        picture.save(file, "WEBP", quality=_PREVIEW_QUALITY)
        return {}, file.getvalue()
    _sheet(_tiles(decoder)).save(file, "JPEG", quality=_PREVIEW_QUALITY)
    return {}, file.getvalue()


def _tiles(decoder: VideoDecoder) -> "list[Image.Image]":
    """Return up to `_MAX_TILES` small pictures, evenly distributed. At most four times as many are in memory."""
    kept: list[Image.Image] = []
    stride = 1
    for number, (_, frame) in enumerate(decoder):
        if number % stride:
            continue
        if len(kept) == 4 * _MAX_TILES:
            del kept[1::2]
            stride *= 2
            if number % stride:
                continue
        tile = upright(frame, (_TILE_SIDE, _TILE_SIDE))
        tile.thumbnail((_TILE_SIDE, _TILE_SIDE))
        kept.append(tile)
    count = min(_MAX_TILES, len(kept))
    return [kept[at * len(kept) // count] for at in range(count)]


def _sheet(tiles: "list[Image.Image]") -> "Image.Image":
    from PIL import Image

    columns = next(side for side in range(1, _MAX_TILES + 1) if side * side >= len(tiles))
    width, height = tiles[0].size
    sheet = Image.new("RGB", (columns * width, -(-len(tiles) // columns) * height))
    for at, tile in enumerate(tiles):
        sheet.paste(tile.resize((width, height)), (at % columns * width, at // columns * height))
    return sheet


def upright(frame: "av.VideoFrame", size: tuple[int, int]) -> "Image.Image":
    """Return the picture of a frame as players show it: rotated, and with square pixels.

    A frame that is much larger than `size` is scaled down, to at least twice that size.
    """
    from PIL import Image

    smaller = 2 * max(size) / min(frame.width, frame.height)
    scaled = {"width": round(frame.width * smaller), "height": round(frame.height * smaller), "interpolation": "AREA"}
    picture: Image.Image = frame.to_image(**(scaled if smaller < 1 else {}))  # type: ignore[no-untyped-call]
    aspect = getattr(frame, "sample_aspect_ratio", None)
    if aspect and aspect != 1 and Fraction(1, 8) <= aspect <= 8:
        width, height = picture.size
        narrow = aspect < 1
        stretched = (width, max(1, round(height / aspect))) if narrow else (max(1, round(width * aspect)), height)
        picture = picture.resize(stretched)
    if turn := round(frame.rotation / 90) % 4:
        picture = picture.transpose(
            (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)[turn - 1]
        )
    return picture
