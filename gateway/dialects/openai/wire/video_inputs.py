"""Pictures and videos that a video request starts from: received, decoded, and fitted to the model."""

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from fastapi import Request

from gateway.errors import FileNotFound, InvalidRequest, UnsupportedOption
from gateway.files.file_store import FileStore
from gateway.http import delivery
from gateway.http.forms import Upload
from gateway.http.offload import LARGE_BYTES
from gateway.http.request_images import RequestImages
from gateway.http.spooled_forms import SpooledUpload
from gateway.media.loader import MediaLoader
from gateway.media.spool import SpoolAttachment, SpoolFile
from gateway.media.videos import Clip
from gateway.model_card.video_limits import VideoLimits
from gateway.models.servers import Model
from gateway.operations.generate_video import GenerateVideo
from gateway.settings import Settings

_TASK_ID = re.compile(r"task_[0-9a-f]{32}")


def check(operation: GenerateVideo, model: Model, *, has_reference: bool) -> None:
    """Raise the `GatewayError` with which the model refuses `operation`, before anything is fetched or decoded.

    With `has_reference`, a picture or a video is still to be added.
    """
    if has_reference and model.card.video.requires_image:
        operation = replace(operation, image=b"")
    model.codec(operation.operation).open(operation, model.card)


async def add_reference(
    operation: GenerateVideo, value: Any, request: Request, model: Model, *, param: str, seconds_given: bool
) -> GenerateVideo:
    """Return `operation` with what the field `param` refers to: a picture becomes its first frame, a video its frames.

    `value` is a file of a form, a URL, a data URL, base64, an object with `image_url`, or a list of one of these. A
    video determines the length, unless `seconds_given`. Raises `InvalidRequest`, `UnsupportedOption`, `Overloaded`,
    `StorageFull`, and `ClientDisconnected` as soon as the client disconnects.
    """
    media: MediaLoader = request.app.state.media
    spool = await receive(value, request, param)
    if await media.videos.is_video(spool, param=param):
        return await add_clip(operation, spool, request, model, param=param, seconds_given=seconds_given)
    return await _add_picture(operation, spool, request, model, param=param)


async def add_clip(
    operation: GenerateVideo, spool: SpoolFile, request: Request, model: Model, *, param: str, seconds_given: bool
) -> GenerateVideo:
    """Return `operation` with the frames of the video in `spool`. Raises as `add_reference` does."""
    media: MediaLoader = request.app.state.media
    limits = model.card.video
    if "frames" not in limits.references:
        raise UnsupportedOption("This model does not change another video.", param=param)
    assert operation.width and operation.height and operation.fps and operation.num_frames
    reading = media.videos.read_clip(
        spool,
        size=(operation.width, operation.height),
        fps=operation.fps,
        max_frames=operation.num_frames if seconds_given else limits.max_num_frames,
        param=param,
        caller=request.state.trace.caller,
    )
    clip = await delivery.whole(request, reading)
    request.state.trace.cleanup.callback(clip.frames.close)
    return _fit(operation, clip, limits, param, seconds_given=seconds_given)


async def add_last_frame(
    operation: GenerateVideo, spool: SpoolFile, request: Request, model: Model, *, param: str
) -> GenerateVideo:
    """Return `operation` with the last frame of the video in `spool` as its first. Raises as `add_reference` does."""
    media: MediaLoader = request.app.state.media
    if "image" not in model.card.video.references:
        raise UnsupportedOption("This model does not start from a picture, so it cannot continue a video.", param=param)
    assert operation.width and operation.height
    reading = media.videos.last_frame(
        spool, size=(operation.width, operation.height), param=param, caller=request.state.trace.caller
    )
    frame = await delivery.whole(request, reading)
    _count(request, len(frame))
    return replace(operation, image=frame)


async def receive_stored(file: str, request: Request) -> SpoolFile:
    """Return a copy of a stored file, closed with the request. Raises `FileNotFound`, and as `add_reference` does."""
    files: FileStore = request.app.state.files

    async def copy() -> SpoolFile:
        async with aclosing((await files.get(file)).chunks) as chunks:
            return await _spool(request, chunks)

    return await delivery.whole(request, copy())


async def receive(value: Any, request: Request, param: str) -> SpoolFile:
    """Return the file that the field `param` refers to, which is closed with the request. Raises as `add_reference`."""
    media: MediaLoader = request.app.state.media
    if isinstance(value, list):
        if len(value) != 1:
            raise UnsupportedOption(f"'{param}' may hold one picture or video, not {len(value)}.", param=param)
        value = value[0]
    if isinstance(value, dict):
        if value.get("file_id") is not None:
            raise UnsupportedOption(
                f"'{param}.file_id': this service does not store files; send the file itself.", param=f"{param}.file_id"
            )
        value, param = value.get("image_url"), f"{param}.image_url"
        value = value.get("url") if isinstance(value, dict) else value
    match value:
        case SpooledUpload():
            return value.file
        case Upload():
            return await _spool(request, _parts(value.data))
        case str() if value:
            if param == "video" and _TASK_ID.fullmatch(value):
                raise InvalidRequest(
                    f'Invalid value for \'video\': to name a video by its id, send the object {{"id": "{value}"}}; '
                    "in a form, the field 'video[id]'.",
                    param=param,
                )
            if (stored := RequestImages(request).find(value)) is not None:
                return await _receive_own(stored, request, param)
            caller = request.state.trace.caller
            most = request.app.state.settings.video_max_bytes
            loading = media.uploads.load(value, param=param, caller=caller, max_bytes=most)
            spool = await delivery.whole(request, loading)
            request.state.trace.cleanup.callback(spool.close)
            return spool
        case _:
            raise InvalidRequest(f"'{param}' must be a file, a URL, a data URL, or base64.", param=param)


async def _receive_own(file: str, request: Request, param: str) -> SpoolFile:
    try:
        return await receive_stored(file, request)
    except FileNotFound as error:
        raise InvalidRequest(f"Invalid value for '{param}': {error.message}", param=param) from None


async def _spool(request: Request, chunks: AsyncGenerator[bytes]) -> SpoolFile:
    media: MediaLoader = request.app.state.media
    spool = media.uploads.new_spool(request.state.trace.caller)
    request.state.trace.cleanup.callback(spool.close)
    async for chunk in chunks:
        await spool.write(chunk)
    await spool.finish()
    return spool


async def _parts(data: bytes) -> AsyncGenerator[bytes]:
    yield data


async def _add_picture(
    operation: GenerateVideo, spool: SpoolFile, request: Request, model: Model, *, param: str
) -> GenerateVideo:
    settings: Settings = request.app.state.settings
    if "image" not in model.card.video.references:
        raise UnsupportedOption("This model does not start from a picture.", param=param)
    if operation.strength is not None:
        message = "'strength' requires a video to change; a picture is the first frame."
        raise UnsupportedOption(message, param="strength")
    if spool.size > settings.media_max_bytes:
        raise InvalidRequest(
            f"Invalid value for '{param}': the image is larger than the limit of {settings.media_max_bytes} bytes.",
            param=param,
        )
    assert operation.width and operation.height
    data = b"".join([chunk async for chunk in spool.chunks()])
    picture = await first_frame(data, (operation.width, operation.height), request, param)
    return replace(operation, image=picture)


async def first_frame(data: bytes, size: tuple[int, int], request: Request, param: str) -> bytes:
    """Return an encoded image in the `size` of a video, as a PNG. Raises as `add_reference` does."""
    media: MediaLoader = request.app.state.media

    async def load() -> bytes:
        with media.new_budget(request.state.trace.caller) as budget:
            loading = media.load_first_frame(data, size, param=param, budget=budget)
            return await budget.run_with_timeout(media.request_timeout, loading, param=param)

    picture = await delivery.whole(request, load())
    _count(request, len(picture))
    return picture


def _fit(
    operation: GenerateVideo, clip: Clip, limits: VideoLimits, param: str, *, seconds_given: bool
) -> GenerateVideo:
    """Return `operation` with the frames of a clip. Without `seconds_given` it gets the length of the clip, too."""
    assert operation.fps and operation.num_frames
    fps = operation.fps
    if not seconds_given:
        if clip.is_cut:
            most = limits.seconds(clip.count, fps)
            raise InvalidRequest(
                f"Invalid value for '{param}': this model generates up to {most:g} seconds at {fps} frames a second, "
                "and the video is longer. Set 'seconds' to change its beginning.",
                param=param,
            )
        operation = replace(operation, num_frames=clip.count, seconds=limits.seconds(clip.count, fps))
    elif clip.count != operation.num_frames:
        frames = f"{clip.count} frame{'s' if clip.count > 1 else ''}"
        raise InvalidRequest(
            f"Invalid value for 'seconds': at {fps} frames a second the video has {frames}, and {operation.num_frames} "
            "are needed.",
            param="seconds",
        )
    return replace(operation, frames=SpoolAttachment(clip.frames))


def _count(request: Request, size: int) -> None:
    """Count `size` bytes as part of the request. Raises `Overloaded` if the requests of the caller hold too much."""
    trace = request.state.trace
    trace.is_large |= size > LARGE_BYTES
    if trace.reservation:
        trace.reservation.acquire(size)
