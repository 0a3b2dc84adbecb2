"""Run the operation of a task on its model, and store the outputs as files."""

import asyncio
import time
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from gateway.errors import GatewayError, ModelNotFound, Overloaded, RateLimited, StorageFull
from gateway.files.file_store import FileStore
from gateway.media.recordings import Recordings
from gateway.models.catalog import Catalog
from gateway.observability.telemetry import Metrics, Trace
from gateway.operations.operation import ExpectedOutput, Output, Progress, TaskOperation
from gateway.operations.recording import Attachment
from gateway.tasks.request_json import deserialize
from gateway.tasks.task import TaskOutput

if TYPE_CHECKING:
    from gateway.observability.spans import Tracing

ROUTE = "task"
"""The route of tasks in metrics and logs."""

_DISCOVERY_SECONDS = 10.0
"""Seconds for which an unknown model is retried: discovery may not have seen all servers yet."""
_MAX_BACKOFF_SECONDS = 10.0

T = TypeVar("T")


class TaskExecutor:
    """Runs requests of tasks, with retries while a model or the file store is unavailable or full."""

    def __init__(
        self,
        catalog: Catalog,
        files: FileStore,
        metrics: Metrics,
        patience: float,
        tracing: "Tracing | None" = None,
        recordings: Recordings | None = None,
    ) -> None:
        """`patience` is the time in seconds for which a task retries (setting `tasks_patience`).

        `recordings` decodes stored recordings; None: tasks with recordings fail.
        """
        self._recordings = recordings
        self._tracing = tracing
        self._catalog = catalog
        self._files = files
        self._metrics = metrics
        self._retry_seconds = patience

    async def execute(
        self,
        id: str,
        kind: str,
        stored: dict[str, Any],
        advance: Callable[[float], None],
        belongs_here: Callable[[], Awaitable[bool]],
    ) -> list[TaskOutput]:
        """Run the task `id` and return its outputs in their order.

        `kind` is the name of the operation, and `stored` the JSON of its request. `advance` is called with the part
        that is done, 0 to 1. `belongs_here` returns False once another gateway has taken the task over; it may raise a
        `GatewayError`. Raises `GatewayError`.
        """
        trace = Trace(self._metrics, id, route=ROUTE, span=self._tracing.begin_task(id) if self._tracing else None)
        status = 499
        try:
            unseeded = await self._retry(lambda: self.read_request(kind, stored))
            request = await self._retry(lambda: self._with_seed(id, unseeded))
            outputs = await self._retry(lambda: self._find_existing_outputs(id, request))
            if outputs is None:
                outputs = await self._retry(lambda: self._run(id, request, trace, advance, belongs_here))
            status = 200
            return outputs
        except GatewayError as error:
            status, trace.error = error.status, error
            raise
        except Exception:
            status = 500
            raise
        finally:
            trace.finish(status)

    async def read_request(self, kind: str, stored: Mapping[str, Any]) -> TaskOperation:
        """Return the request of a task from its JSON. Raises `FileNotFound`, `Overloaded` and `GatewayError`."""
        return await deserialize(kind, stored, self._files, self._attach)

    async def _with_seed(self, id: str, request: TaskOperation) -> TaskOperation:
        """Fill in a seed that depends on the task's id alone, so that a repeated run gives the same outputs."""
        name = request.seed_field
        if name is None or getattr(request, name) is not None:
            return request
        if name not in self._catalog.get(request.model).config.inputs:
            return request
        seed: dict[str, Any] = {name: zlib.crc32(id.encode())}
        return replace(request, **seed)

    def _attach(self, file: str) -> Attachment:
        """Return the stored recording with this id. It is copied from the store when it is decoded."""
        if self._recordings is None:
            raise TypeError("this gateway decodes no recordings")

        async def chunks() -> AsyncGenerator[bytes]:
            async with aclosing((await self._files.get(file)).chunks) as stored:
                async for chunk in stored:
                    yield chunk

        return self._recordings.stored(chunks, param="file", caller="")

    async def _find_existing_outputs(self, id: str, request: TaskOperation) -> list[TaskOutput] | None:
        """Return all outputs where all are stored: the gateway was killed before the database had the result."""
        found = []
        # From the last one on: if it is missing, the others need no look.
        for expected in reversed(request.expected_outputs() or ()):
            file = await self._files.find(_output_name(id, expected.index), expected.content_type)
            if file is None:
                return None
            found.append(_task_output(expected, file))
        return found[::-1] or None

    async def _run(
        self,
        id: str,
        request: TaskOperation,
        trace: Trace,
        advance: Callable[[float], None],
        belongs_here: Callable[[], Awaitable[bool]],
    ) -> list[TaskOutput]:
        outputs: list[TaskOutput] = []
        try:
            sent = request.model_request()
            async with (
                aclosing(self._catalog.run_by_name(request.model, sent, trace) if sent else _no_events()) as events,
                aclosing(request.task_events(events)) as task_events,
            ):
                async for event in task_events:
                    if isinstance(event, Progress):
                        advance(event.fraction)
                    else:
                        outputs.append(_task_output(event, await self._store_output(id, event)))
        except GatewayError:
            with suppress(GatewayError):  # the file store's sweep deletes what stays
                # Outputs are named after their task: those of a gateway that has taken it over have the same names.
                if outputs and await belongs_here():
                    await self._files.delete(*(output.file for output in outputs))
            raise
        return sorted(outputs, key=lambda output: output.index)

    async def _store_output(self, id: str, output: Output) -> str:
        name = _output_name(id, output.index)
        return await self._retry(lambda: self._files.put(output.data, output.content_type, name=name))

    async def _retry(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Await `attempt()`, and retry with backoff while something is unavailable or full, up to the patience."""
        began = time.monotonic()
        wait = 0.5
        while True:
            try:
                return await attempt()
            except (Overloaded, RateLimited, StorageFull, ModelNotFound) as error:
                patience = _DISCOVERY_SECONDS if isinstance(error, ModelNotFound) else self._retry_seconds
                if time.monotonic() - began + wait > patience:
                    raise
            await asyncio.sleep(wait)
            wait = min(2 * wait, _MAX_BACKOFF_SECONDS)


async def _no_events(events: tuple[Any, ...] = ()) -> AsyncGenerator[Any]:
    for event in events:
        yield event


def _task_output(output: ExpectedOutput, file: str) -> TaskOutput:
    return TaskOutput(output.index, file, output.content_type, output.facts)


def _output_name(id: str, index: int) -> str:
    """Return the name of an output in the file store: a task that runs again replaces its outputs."""
    return f"{id}/{index}"
