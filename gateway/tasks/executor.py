"""Does what a task asks: the model draws, the pictures are kept, and their ids are the result."""

import asyncio
import time
import zlib
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Any, TypeVar

from gateway.errors import GatewayError, ModelNotFound, Overloaded, RateLimited, StorageFull
from gateway.files.file_store import FileStore
from gateway.models.catalog import Catalog
from gateway.observability.telemetry import Metrics, Trace
from gateway.operations.generate_image import GenerateImage, Image, Progress
from gateway.tasks.request_json import deserialize

ROUTE = "task"
"""The route of tasks in metrics and logs."""

_DISCOVERY_SECONDS = 10.0
"""Seconds within which a model that nobody knows may yet be found: a gateway that starts has not seen all servers."""
_MAX_BACKOFF_SECONDS = 10.0

T = TypeVar("T")


class TaskExecutor:
    """Asks models for what tasks want, and waits for those that are away."""

    def __init__(self, catalog: Catalog, files: FileStore, metrics: Metrics, patience: float) -> None:
        """`patience` is how many seconds a task waits for a model or a store that cannot take it now."""
        self._catalog = catalog
        self._files = files
        self._metrics = metrics
        self._retry_seconds = patience

    async def execute(
        self, id: str, kind: str, packed: dict[str, Any], advance: Callable[[float], None]
    ) -> dict[str, Any]:
        """Return `{"images": [...]}`, the fields of `Drawn`; `advance` is told the part that is done, 0 to 1.

        Raises `GatewayError`.
        """
        trace = Trace(self._metrics, id, route=ROUTE)
        status = 499
        try:
            asked = await self._retry(lambda: deserialize(kind, packed, self._files))
            request = await self._retry(lambda: self._with_seed(id, asked))
            images = await self._retry(lambda: self._find_existing_outputs(id, request))
            if images is None:
                images = await self._retry(lambda: self._generate(id, request, trace, advance))
            status = 200
            return {"images": images}
        except GatewayError as error:
            status, trace.error = error.status, error
            raise
        except Exception:
            status = 500
            raise
        finally:
            trace.finish(status)

    async def _with_seed(self, id: str, request: GenerateImage) -> GenerateImage:
        """Draw by lot what the model would, but by the task's own: done again, it draws the same pictures."""
        if request.seed is not None or "seed" not in self._catalog.get(request.model).config.inputs:
            return request
        return replace(request, seed=zlib.crc32(id.encode()))

    async def _find_existing_outputs(self, id: str, request: GenerateImage) -> list[dict[str, Any]] | None:
        """The pictures of a task that was killed between the last of them and the word in the database."""
        content_type = f"image/{request.output_format}"
        drawn = []
        for index in reversed(range(request.n)):
            file = await self._files.find(_output_name(id, index), content_type)
            if file is None:
                return None
            seed = None if request.seed is None else request.seed + index
            drawn.append({"index": index, "file": file, "seed": seed, "content_type": content_type})
        return drawn[::-1]

    async def _generate(
        self, id: str, request: GenerateImage, trace: Trace, advance: Callable[[float], None]
    ) -> list[dict[str, Any]]:
        drawn: list[dict[str, Any]] = []
        content_type = f"image/{request.output_format}"
        try:
            async with aclosing(self._catalog.run_by_name(request.model, request, trace)) as events:
                async for event in events:
                    if isinstance(event, Progress):
                        advance(event.fraction)
                    elif isinstance(event, Image):
                        file = await self._store_output(id, event, content_type)
                        drawn.append(
                            {"index": event.index, "file": file, "seed": event.seed, "content_type": content_type}
                        )
        except GatewayError:
            with suppress(GatewayError):  # what a store keeps that fails is swept in time
                await self._files.delete(*(image["file"] for image in drawn))
            raise
        return sorted(drawn, key=lambda image: image["index"])

    async def _store_output(self, id: str, image: Image, content_type: str) -> str:
        name = _output_name(id, image.index)
        return await self._retry(lambda: self._files.put(image.data, content_type, name=name))

    async def _retry(self, work: Callable[[], Awaitable[T]]) -> T:
        """Await `work`, again where it found something away or full, for as long as tasks wait."""
        began = time.monotonic()
        wait = 0.5
        while True:
            try:
                return await work()
            except (Overloaded, RateLimited, StorageFull, ModelNotFound) as error:
                patience = _DISCOVERY_SECONDS if isinstance(error, ModelNotFound) else self._retry_seconds
                if time.monotonic() - began + wait > patience:
                    raise
            await asyncio.sleep(wait)
            wait = min(2 * wait, _MAX_BACKOFF_SECONDS)


def _output_name(id: str, index: int) -> str:
    """What a picture is kept under: a task that is done again replaces its pictures, and leaves none behind."""
    return f"{id}/{index}"
