"""The pictures that a request for pictures begins with: files of a form, URLs, data URLs, base64.

`edit` and `variation` make operations of requests that have such.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from fastapi import Request

from gateway import delivery
from gateway.catalog import Catalog
from gateway.dialects.vocabulary.images import (
    MOST_PICTURES,
    CreateImageRequest,
    CreateImageVariationRequest,
    ImageFields,
)
from gateway.dialects.vocabulary.keeping import Keeping
from gateway.errors import InvalidRequest, UnsupportedOption
from gateway.http.apart import LARGE
from gateway.http.forms import Upload
from gateway.media.allowance import Allowance
from gateway.media.media import Media
from gateway.operations.edit_image import EditImage
from gateway.operations.generate_image import GenerateImage
from gateway.telemetry import Trace


async def generation(body: CreateImageRequest, model: str, request: Request) -> GenerateImage:
    """Return what `body` asks of `model`, an edit where it begins with pictures. Raises as `edit` does."""
    if body.edits:
        return await edit(body, model, request)
    if body.strength is not None:
        raise InvalidRequest("'strength' belongs to a picture, and none came.", param="strength")
    return GenerateImage(model=model, prompt=body.prompt, scaled=_scaled(body, request), **body.options())


async def edit(body: CreateImageRequest, model: str, request: Request) -> EditImage:
    """Return what `body` asks of `model`; its pictures are fetched.

    Raises `InvalidRequest` and `UnsupportedOption`, and `ClientGone` as soon as the client hangs up.
    """
    if body.image is not None and body.images is not None:
        raise InvalidRequest("'image' and 'images' are two names for the same: send one of them.", param="images")
    options = body.options()
    references = _named(body.image, "image") if body.images is None else _named(body.images, "images")
    masks = [] if body.mask is None else _named(body.mask, "mask")
    if len(masks) > 1:
        raise InvalidRequest("'mask' must be one picture.", param="mask")
    found = await delivery.whole(request, _fetch(request, [*references, *masks]))
    return EditImage(
        model=model,
        prompt=body.prompt,
        images=tuple(found[: len(references)]),
        mask=found[-1] if masks else None,
        strength=body.strength,
        scaled=_scaled(body, request),
        **options,
    )


async def variation(body: CreateImageVariationRequest, model: str, request: Request) -> EditImage:
    """Do the same for a request without a prompt."""
    options = body.options()
    found = await delivery.whole(request, _fetch(request, _named(body.image, "image")))
    return EditImage(
        model=model,
        prompt="",
        images=tuple(found),
        strength=body.strength,
        scaled=_scaled(body, request),
        **options,
    )


def _scaled(body: ImageFields, request: Request) -> bool:
    """Who asks for a model by another's name expects the sizes of that one."""
    catalog: Catalog = request.app.state.catalog
    return catalog.is_alias(body.model)


def _named(given: Any, name: str) -> list[tuple[str, Any]]:
    """Return each reference of the field `name` with its path. Raises `InvalidRequest` where there are none."""
    if given is None or given == "":
        raise InvalidRequest(f"The field '{name}' is required.", param=name)
    if not isinstance(given, list):
        return [(name, given)]
    if not given:
        raise InvalidRequest(f"'{name}' must hold at least one picture.", param=name)
    if len(given) > MOST_PICTURES:
        raise InvalidRequest(f"'{name}' may hold {MOST_PICTURES} pictures, not {len(given)}.", param=name)
    return [(f"{name}[{at}]" if len(given) > 1 else name, each) for at, each in enumerate(given)]


async def _fetch(request: Request, references: Sequence[tuple[str, Any]]) -> list[bytes]:
    """Return the encoded pictures that references lead to, each looked at once.

    Raises `InvalidRequest` and `UnsupportedOption` with the path of what is wrong.
    """
    media: Media = request.app.state.media
    keeping = Keeping(request)
    trace: Trace = request.state.trace
    with media.allowance(trace.caller) as allowance:
        tasks = [asyncio.create_task(_picture(media, keeping, given, path, allowance)) for path, given in references]
        try:
            found = await allowance.within(media.request_timeout, asyncio.gather(*tasks), param=references[0][0])
            # What was fetched makes a small body a large request: it is packed into tensors.
            size = sum(map(len, found))
            trace.large |= size > LARGE
            if trace.holding:
                trace.holding.take(size)
            return list(found)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _picture(media: Media, keeping: Keeping, given: Any, path: str, allowance: Allowance) -> bytes:
    if isinstance(given, Upload):
        return (await media.uploaded_picture(given.data, param=path, allowance=allowance)).data
    if isinstance(given, dict):
        if given.get("file_id") is not None:
            raise UnsupportedOption(
                f"'{path}.file_id': files are not kept here; send the picture itself.", param=f"{path}.file_id"
            )
        given, path = given.get("image_url"), f"{path}.image_url"
        given = given.get("url") if isinstance(given, dict) else given
    if not isinstance(given, str) or not given:
        raise InvalidRequest(f"'{path}' must be a URL, a data URL, or base64.", param=path)
    return (await keeping.picture(given, param=path, bare=True, allowance=allowance)).data
