"""The model and the answer of the platforms' image routes: pictures at once, or a task."""

import asyncio
import base64
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from typing import Any, Protocol

import orjson
from fastapi import Request
from starlette.responses import Response

from gateway.dialects.platform import access, tasks
from gateway.errors import Overloaded
from gateway.http import delivery
from gateway.http.request_images import RequestImages
from gateway.models.catalog import Catalog
from gateway.models.servers import Model
from gateway.operations.made_image import MadeImage, gather
from gateway.operations.operation import TaskOperation


class EncodedImage(Protocol):
    """A picture of an answer: its file."""

    @property
    def data(self) -> bytes:
        """The bytes of the file."""
        ...


class ImageBody(Protocol):
    """The fields of a body that decide about the form of the answer."""

    @property
    def response_format(self) -> str | None:
        """`url`, `b64_json`, or nothing."""
        ...

    @property
    def webhook_url(self) -> str | None:
        """The URL that is called at the end of a task."""
        ...


def find_model(request: Request, name: str, operation: type[TaskOperation], *, later: bool) -> Model | None:
    """Return the model; None where its server is unavailable and the request is `later`, as a task can wait for it.

    Raises as `access.find_model` does.
    """
    try:
        return access.find_model(request, name, operation)
    except Overloaded:
        if later:
            return None
        raise


async def answer(
    request: Request,
    body: ImageBody,
    model: Model | None,
    operation: Any,
    collect: Callable[[AsyncGenerator[Any]], Coroutine[Any, Any, Sequence[EncodedImage]]],
    *,
    later: bool,
) -> Response:
    """Return the pictures of `operation`, or for a request that is `later` the task that makes them.

    `operation` is a `TaskOperation` with an `output_format`, and `collect` gathers the pictures of its events.
    """
    if later or model is None:
        return await tasks.submit(request, operation, body.webhook_url)
    catalog: Catalog = request.app.state.catalog
    made = await delivery.whole(request, collect(catalog.run(model, operation, request.state.trace)))
    output_format = operation.output_format
    if body.response_format == "url":
        urls = await RequestImages(request).store_all((image.data for image in made), output_format)
        return Response(_render([{"url": url} for url in urls]), media_type="application/json")
    # Encoding ten large images in base64 would block the event loop.
    text = await asyncio.to_thread(lambda: _render([_data_url(image, output_format) for image in made]))
    return Response(text, media_type="application/json")


async def gather_one(events: AsyncGenerator[Any]) -> list[MadeImage]:
    """Return the one picture of a stream."""
    return [await gather(events)]


def _data_url(image: EncodedImage, output_format: str) -> dict[str, str]:
    return {"b64_json": f"data:image/{output_format};base64,{base64.b64encode(image.data).decode()}"}


def _render(data: list[dict[str, Any]]) -> bytes:
    return orjson.dumps({"created": int(time.time()), "data": data})
