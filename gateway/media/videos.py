"""Videos of requests and of the file store, decoded in processes that can be killed."""

import importlib.util
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from gateway.errors import ModelFailed, UnsupportedOption
from gateway.media import sniffing
from gateway.media.decoder_pool import DecoderPool
from gateway.media.fork_server import ForkServer
from gateway.media.invalid_media import InvalidMedia
from gateway.media.spool import SpoolFile
from gateway.media.uploads import Uploads, invalid, read_head
from gateway.settings import Settings

PreviewVariant: TypeAlias = Literal["thumbnail", "spritesheet"]

PREVIEW_TYPES: dict[PreviewVariant, str] = {"thumbnail": "image/webp", "spritesheet": "image/jpeg"}
"""The media types of previews."""
_SLOT_SECONDS = 60.0
"""Seconds that a video waits for a process."""
_GIF_FRAME = b"\x21\xf9\x04"
"""The beginning of a frame in an animated GIF: the graphic control extension."""
_CONTAINER_NAMES = "MP4, MOV, 3GP, WebM, Matroska, AVI, FLV, ASF, MPEG, MPEG-TS, Ogg or GIF"
"""Those of `sniffing.VIDEO_CONTAINERS`, as docs/dialects.md lists them."""
_MAX_PREVIEW_BYTES = 8 * 1024 * 1024
_NO_DECODER = "this gateway decodes no videos, as its extra 'audio' (PyAV) is not installed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """The file `frames` has the frames of a video: `count` JPEG files in order, each after its length in four bytes.

    `is_cut` is True if the video goes on.
    """

    frames: SpoolFile
    count: int
    is_cut: bool


class Videos:
    """Decodes videos within limits of bytes, pixels, seconds, frames, memory and processes."""

    def __init__(self, settings: Settings, fork_server: ForkServer, uploads: Uploads) -> None:
        """`uploads` makes the files of clips."""
        self._settings = settings
        self._uploads = uploads
        self._pool = DecoderPool(
            fork_server,
            label="video",
            num_slots=settings.video_workers,
            timeout=settings.video_timeout,
            memory=settings.document_memory_bytes,
            slot_timeout=_SLOT_SECONDS,
        )

    async def is_video(self, spool: SpoolFile, *, param: str) -> bool:
        """Return whether a complete file is a container of videos, or a GIF with several frames. Decodes nothing.

        Raises `InvalidRequest` with `param` for an empty file.
        """
        try:
            media_type = sniffing.sniff(read_head(spool)).media_type
        except InvalidMedia as error:
            raise invalid(error, param) from None
        if media_type != "image/gif":
            return media_type in sniffing.VIDEO_CONTAINERS
        frames = 0
        async with aclosing(spool.chunks()) as chunks:
            async for chunk in chunks:
                frames += chunk.count(_GIF_FRAME)
        return frames > 1

    async def read_clip(
        self,
        spool: SpoolFile,
        *,
        size: tuple[int, int],
        fps: int,
        max_frames: int,
        param: str,
        caller: str,
    ) -> Clip:
        """Return the frames of a complete file at `fps` frames a second, in `size`, up to `max_frames`.

        The caller closes the file of the clip. Raises `InvalidRequest` with `param` for a bad file, `StorageFull`, and
        `Overloaded`.
        """
        clip = self._uploads.new_spool(caller)
        try:
            task = {
                **self._task(spool),
                "task": "clip",
                "width": size[0],
                "height": size[1],
                "fps": fps,
                "max_frames": max_frames,
                "max_bytes": self._settings.video_frames_max_bytes,
            }
            head: dict[str, Any] = {}
            async with aclosing(self._pool.decode_in_pieces(task, spool.open(), caller=caller)) as pieces:
                async for piece in pieces:
                    if isinstance(piece, dict):
                        head = piece
                    elif clip.size + len(piece) > self._settings.video_frames_max_bytes:
                        raise InvalidMedia("the video is damaged")  # no child of ours sends so much
                    else:
                        await clip.write(piece)
            await clip.finish()
            count = head.get("count")
            if not isinstance(count, int) or not 0 < count <= max_frames:
                raise InvalidMedia("the video has no frames")
            return Clip(frames=clip, count=count, is_cut=bool(head.get("more")))
        except InvalidMedia as error:
            clip.close()
            raise invalid(error, param) from None
        except BaseException:
            clip.close()
            raise

    async def last_frame(self, spool: SpoolFile, *, size: tuple[int, int], param: str, caller: str) -> bytes:
        """Return the last frame of a complete file in `size` (PNG). Raises as `read_clip` does."""
        try:
            task = {**self._task(spool), "task": "last_frame", "width": size[0], "height": size[1]}
            _, body = await self._pool.decode_file(
                task, spool.open(), caller=caller, max_body_bytes=_MAX_PREVIEW_BYTES + 4 * size[0] * size[1]
            )
        except InvalidMedia as error:
            raise invalid(error, param) from None
        return body

    async def preview(self, spool: SpoolFile, variant: PreviewVariant, *, caller: str) -> bytes:
        """Return a preview of a video that a model made, in the format of `PREVIEW_TYPES`.

        Raises `ModelFailed` if the video cannot be decoded, `UnsupportedOption` if this gateway decodes no videos, and
        `Overloaded`.
        """
        if not _can_decode():
            raise UnsupportedOption(f"There is no preview: {_NO_DECODER}.", param="variant")
        try:
            task = {**self._task(spool), "task": "preview", "variant": variant}
            _, body = await self._pool.decode_file(task, spool.open(), caller=caller, max_body_bytes=_MAX_PREVIEW_BYTES)
        except InvalidMedia as error:
            raise ModelFailed(f"The model returned a video that cannot be decoded: {error}.") from None
        return body

    def _task(self, spool: SpoolFile) -> dict[str, object]:
        """Return the fields that the tasks of a video share. Raises `InvalidMedia` for another file."""
        if not _can_decode():
            raise InvalidMedia(_NO_DECODER)
        if spool.size > self._settings.video_max_bytes:
            raise InvalidMedia(f"the video is larger than the limit of {self._settings.video_max_bytes} bytes")
        sniffed = sniffing.sniff(read_head(spool))
        container = sniffing.VIDEO_CONTAINERS.get(sniffed.media_type)
        if container is None:
            raise InvalidMedia(f"expected a video ({_CONTAINER_NAMES}), got {sniffed.description}")
        return {
            "container": container,
            "max_seconds": self._settings.video_max_seconds,
            "max_pixels": self._settings.video_max_pixels,
        }


def _can_decode() -> bool:
    return importlib.util.find_spec("av") is not None
