"""The pictures that a request for pictures begins with: files of a form, URLs, data URLs, base64.

`edit` and `variation` make operations of requests that have such.
"""

from collections.abc import Sequence
from typing import Any

from fastapi import Request

from gateway.dialects.openai.wire.images import MAX_IMAGES, CreateImageRequest, CreateImageVariationRequest, ImageFields
from gateway.errors import InvalidRequest, UnsupportedOption
from gateway.http.forms import Upload
from gateway.http.media_references import MediaReferences, Reference
from gateway.models.catalog import Catalog
from gateway.operations.chat import ImagePart
from gateway.operations.edit_image import EditImage
from gateway.operations.generate_image import GenerateImage


async def parse_generation(body: CreateImageRequest, model: str, request: Request) -> GenerateImage:
    """Return what `body` asks of `model`, an edit where it begins with pictures. Raises as `edit` does."""
    if body.is_edit:
        return await parse_edit(body, model, request)
    if body.strength is not None:
        raise InvalidRequest("'strength' belongs to a picture, and none came.", param="strength")
    return GenerateImage(model=model, prompt=body.prompt, allow_resize=_is_scalable(body, request), **body.options())


async def parse_edit(body: CreateImageRequest, model: str, request: Request) -> EditImage:
    """Return what `body` asks of `model`; its pictures are fetched.

    Raises `InvalidRequest` and `UnsupportedOption`, and `ClientGone` as soon as the client hangs up.
    """
    if body.image is not None and body.images is not None:
        raise InvalidRequest("'image' and 'images' are two names for the same: send one of them.", param="images")
    options = body.options()
    references = (
        _list_references(body.image, "image") if body.images is None else _list_references(body.images, "images")
    )
    masks = [] if body.mask is None else _list_references(body.mask, "mask")
    if len(masks) > 1:
        raise InvalidRequest("'mask' must be one picture.", param="mask")
    found = await _load(request, [*references, *masks])
    return EditImage(
        model=model,
        prompt=body.prompt,
        images=tuple(found[: len(references)]),
        mask=found[-1] if masks else None,
        strength=body.strength,
        allow_resize=_is_scalable(body, request),
        **options,
    )


async def parse_variation(body: CreateImageVariationRequest, model: str, request: Request) -> EditImage:
    """Do the same for a request without a prompt."""
    options = body.options()
    found = await _load(request, _list_references(body.image, "image"))
    return EditImage(
        model=model,
        prompt="",
        images=tuple(found),
        strength=body.strength,
        allow_resize=_is_scalable(body, request),
        **options,
    )


def _is_scalable(body: ImageFields, request: Request) -> bool:
    """Who asks for a model by another's name expects the sizes of that one."""
    catalog: Catalog = request.app.state.catalog
    return catalog.is_alias(body.model)


def _list_references(given: Any, name: str) -> list[tuple[str, Any]]:
    """Return each reference of the field `name` with its path. Raises `InvalidRequest` where there are none."""
    if given is None or given == "":
        raise InvalidRequest(f"The field '{name}' is required.", param=name)
    if not isinstance(given, list):
        return [(name, given)]
    if not given:
        raise InvalidRequest(f"'{name}' must hold at least one picture.", param=name)
    if len(given) > MAX_IMAGES:
        raise InvalidRequest(f"'{name}' may hold {MAX_IMAGES} pictures, not {len(given)}.", param=name)
    return [(f"{name}[{at}]" if len(given) > 1 else name, each) for at, each in enumerate(given)]


async def _load(request: Request, references: Sequence[tuple[str, Any]]) -> list[bytes]:
    """Return the encoded images that `references`, pairs of a path in the body and a value, lead to. All are decoded.

    Raises `InvalidRequest` and `UnsupportedOption` with the path of what is wrong, and what `MediaReferences.load`
    raises.
    """
    media = MediaReferences.of_request(request)
    images = [_parse_reference(media, value, path) for path, value in references]
    await media.load(images, param=references[0][0])
    found = [image.loaded.data for image in images if image.loaded]
    media.count(sum(map(len, found)))
    return found


def _parse_reference(media: MediaReferences, value: Any, path: str) -> Reference[ImagePart]:
    if isinstance(value, Upload):
        return media.uploaded_image(value.data, param=path)
    if isinstance(value, dict):
        if value.get("file_id") is not None:
            raise UnsupportedOption(
                f"'{path}.file_id': files are not kept here; send the picture itself.", param=f"{path}.file_id"
            )
        value, path = value.get("image_url"), f"{path}.image_url"
        value = value.get("url") if isinstance(value, dict) else value
    if not isinstance(value, str) or not value:
        raise InvalidRequest(f"'{path}' must be a URL, a data URL, or base64.", param=path)
    return media.image(value, param=path, allow_base64=True)
