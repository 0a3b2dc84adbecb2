"""Operations of image requests, with their input images loaded: files of a form, URLs, data URLs and base64."""

from collections.abc import Mapping, Sequence
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
    """Return the operation of `body`: an edit where it has images. Raises as `parse_edit` does."""
    if body.is_edit:
        return await parse_edit(body, model, request)
    if body.strength is not None:
        raise InvalidRequest("'strength' requires an 'image', which is missing.", param="strength")
    return GenerateImage(model=model, prompt=body.prompt, allow_resize=_allows_resize(body, request), **body.options())


async def parse_edit(body: CreateImageRequest, model: str, request: Request) -> EditImage:
    """Return the edit of `body`, with its images loaded.

    Raises `InvalidRequest`, `UnsupportedOption` and `Overloaded`, and `ClientDisconnected` as soon as the client
    disconnects.
    """
    if body.image is not None and body.images is not None:
        raise InvalidRequest("Send either 'image' or 'images', not both.", param="images")
    options = body.options()
    references = (
        _list_references(body.image, "image") if body.images is None else _list_references(body.images, "images")
    )
    masks = [] if body.mask is None else _list_references(body.mask, "mask")
    if len(masks) > 1:
        raise InvalidRequest("'mask' must be one image.", param="mask")
    images = await _load(request, [*references, *masks])
    return EditImage(
        model=model,
        prompt=body.prompt,
        images=tuple(images[: len(references)]),
        mask=images[-1] if masks else None,
        strength=body.strength,
        allow_resize=_allows_resize(body, request),
        **options,
    )


async def parse_variation(body: CreateImageVariationRequest, model: str, request: Request) -> EditImage:
    """Return the edit of a request without a prompt. Raises as `parse_edit` does."""
    options = body.options()
    images = await _load(request, _list_references(body.image, "image"))
    return EditImage(
        model=model,
        prompt="",
        images=tuple(images),
        strength=body.strength,
        allow_resize=_allows_resize(body, request),
        **options,
    )


def _allows_resize(body: ImageFields, request: Request) -> bool:
    """Return whether images may be scaled: a client that uses an alias expects the sizes of that other model."""
    catalog: Catalog = request.app.state.catalog
    return catalog.is_alias(body.model)


def _list_references(value: Any, name: str) -> list[tuple[str, Any]]:
    """Return the path and the value of each reference in the field `name`. Raises `InvalidRequest`."""
    if value is None or value == "":
        raise InvalidRequest(f"The field '{name}' is required.", param=name)
    if not isinstance(value, list):
        return [(name, value)]
    if not value:
        raise InvalidRequest(f"'{name}' must hold at least one image.", param=name)
    if len(value) > MAX_IMAGES:
        raise InvalidRequest(f"'{name}' may hold {MAX_IMAGES} images, not {len(value)}.", param=name)
    return [(f"{name}[{i}]" if len(value) > 1 else name, reference) for i, reference in enumerate(value)]


async def load_named(request: Request, values: Mapping[str, Any]) -> list[bytes]:
    """Return the encoded images that fields refer to, one each. `values` are those of the fields, by name.

    Raises as `parse_edit` does.
    """
    references = []
    for name, value in values.items():
        found = _list_references(value, name)
        if len(found) > 1:
            raise InvalidRequest(f"'{name}' must be one image.", param=name)
        references += found
    return await _load(request, references)


async def _load(request: Request, references: Sequence[tuple[str, Any]]) -> list[bytes]:
    """Return the encoded images that `references`, pairs of a path in the body and a value, lead to. All are decoded.

    Raises `InvalidRequest` and `UnsupportedOption` with the path of what is wrong, and what `MediaReferences.load`
    raises.
    """
    media = MediaReferences.of_request(request)
    loading = [_parse_reference(media, value, path) for path, value in references]
    await media.load(loading, param=references[0][0])
    images = [reference.loaded.data for reference in loading if reference.loaded]
    media.count(sum(map(len, images)))
    return images


def _parse_reference(media: MediaReferences, value: Any, path: str) -> Reference[ImagePart]:
    if isinstance(value, Upload):
        return media.uploaded_image(value.data, param=path)
    if isinstance(value, dict):
        if value.get("file_id") is not None:
            raise UnsupportedOption(
                f"'{path}.file_id': this service does not store files; send the image itself.", param=f"{path}.file_id"
            )
        value, path = value.get("image_url"), f"{path}.image_url"
        value = value.get("url") if isinstance(value, dict) else value
    if not isinstance(value, str) or not value:
        raise InvalidRequest(f"'{path}' must be a URL, a data URL, or base64.", param=path)
    return media.image(value, param=path, allow_base64=True)
