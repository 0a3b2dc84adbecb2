"""The queue of tasks. It is stored in a database, so that tasks survive the end of the gateway."""

import asyncio
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import structlog

from gateway.errors import (
    RETRY_AFTER_SECONDS,
    GatewayError,
    InvalidRequest,
    Overloaded,
    RateLimited,
    TaskNotFound,
)
from gateway.files.file_store import FileStore
from gateway.media.recordings import Recordings
from gateway.models.catalog import Catalog
from gateway.observability.telemetry import Metrics
from gateway.operations.operation import TaskOperation
from gateway.settings import Settings
from gateway.tasks.database import UNUSABLE_MESSAGE, Database
from gateway.tasks.executor import TaskExecutor
from gateway.tasks.request_json import serialize
from gateway.tasks.task import FINAL_STATES, QuotaExceeded, Task, TaskState, id_of_key, is_task_id, new_task_id
from gateway.tasks.webhook_sender import RenderTask, WebhookSender

if TYPE_CHECKING:  # costs 50 MB and half a second, which a gateway without tasks is spared
    from gateway.observability.spans import Tracing
    from gateway.tasks.runtime import TaskRuntime

_OPEN_TIMEOUT_SECONDS = 20.0
"""Most seconds that callers wait for the first attempt to open the database. After a failure, callers do not wait."""
_MAX_KEY_LENGTH = 256
_NO_MODEL_KEY = "no model"
"""The queue of tasks that need no model."""
_MAX_COUNTED = 1000


class TaskQueue:
    """The tasks of all callers. The first task loads DBOS and creates SQLite's file."""

    def __init__(
        self,
        settings: Settings,
        catalog: Catalog,
        files: FileStore,
        metrics: Metrics,
        tracing: "Tracing | None" = None,
        recordings: Recordings | None = None,
        renderers: Mapping[str, RenderTask] | None = None,
    ) -> None:
        """Open nothing. `recordings` decodes those of tasks. `renderers` return the bodies of webhooks, by dialect.

        Raises `DatabaseError` if the setting `tasks` does not name a database.
        """
        self._database = Database(settings)
        self._settings = settings
        self._catalog = catalog
        self._files = files
        self._executor = TaskExecutor(catalog, files, metrics, settings.tasks_patience, tracing, recordings)
        self.webhooks = WebhookSender(settings, metrics, renderers)
        self._runtime: TaskRuntime | None = None
        self._open_task: asyncio.Task[None] | None = None
        self._open_attempted = asyncio.Event()
        self._closed = False
        self._problem: str | None = None
        """The permanent cause that makes the database unusable; None if a retry may succeed."""
        self._log = structlog.get_logger("gateway.tasks")

    def start(self) -> None:
        """Open an existing database in the background, and run its tasks."""
        if self._database.may_exist:
            self._start_opening()

    async def close(self) -> None:
        """Stop running tasks. They stay in the database, and run again when a gateway is back."""
        self._closed = True
        if self._open_task is not None:
            self._open_task.cancel()
            with suppress(asyncio.CancelledError):
                await self._open_task
        if self._runtime is not None:
            await self._runtime.close()

    async def submit(
        self,
        request: TaskOperation,
        owner: str,
        idempotency_key: str | None = None,
        webhook_url: str | None = None,
        *,
        webhook_param: str = "webhook_url",
        labels: Mapping[str, Any] | None = None,
    ) -> Task:
        """Queue `request` as a task, and return the task without waiting for it.

        A repeated request with the same `idempotency_key` of `owner` returns the existing task. The end of the task is
        sent to `webhook_url` (`gateway.tasks.webhooks`), the caller's field `webhook_param`. Raises `ModelNotFound`,
        `UnsupportedOption` and `InvalidRequest` for requests that cannot succeed later either, `RateLimited` if `owner`
        has `tasks_per_key` open tasks, `StorageFull`, and `Overloaded` if the database does not answer.
        """
        self._check(request)
        if webhook_url is not None:
            self.webhooks.check(webhook_url, webhook_param)
        store = (await self._get_runtime()).store
        id = new_task_id()
        if idempotency_key is not None:
            if not 0 < len(idempotency_key) <= _MAX_KEY_LENGTH:
                raise InvalidRequest(
                    f"'Idempotency-Key' must have 1 to {_MAX_KEY_LENGTH} characters.", param="idempotency_key"
                )
            id = id_of_key(owner, idempotency_key)
        limit = self._settings.tasks_per_key
        # Counted twice: here, so that a refused request stores no files, and in the transaction that adds the task,
        # as concurrent requests may pass this check together.
        if await store.count_open(owner, limit) >= limit and await store.find(id, owner) is None:
            raise _too_many_tasks(limit)
        stored_request = await serialize(request, owner, self._files)
        try:
            queue_key = self._queue_key(request.model) if request.model_request() else _NO_MODEL_KEY
            added = await store.add(id, owner, request.operation, queue_key, stored_request, limit, webhook_url, labels)
        except QuotaExceeded:
            if await store.find(id, owner) is None:
                raise _too_many_tasks(limit) from None
            added = False
        task = await self.get(id, owner)
        if not added and (
            (task.kind, dict(task.request)) != (request.operation, stored_request)
            or await store.webhooks.find_url(id) != webhook_url
        ):
            raise InvalidRequest("This idempotency key was used for another request.", param="idempotency_key")
        return task

    async def get(self, id: str, owner: str | None) -> Task:
        """Return a task of `owner`, or of anybody for None. Raises `TaskNotFound` and `Overloaded`."""
        if self._may_have_tasks:
            runtime = await self._get_runtime()
            task = await runtime.store.find(id, owner) if is_task_id(id) else None
            if task is not None:
                return self._with_live_progress(task, runtime)
        raise TaskNotFound(f"The task {id[:64]!r} does not exist, was deleted, or belongs to another API key.")

    async def find_many(self, ids: Collection[str], owner: str) -> list[Task]:
        """Return those of the tasks `ids` that exist and belong to `owner`, in any order. Raises `Overloaded`."""
        known = [id for id in ids if is_task_id(id) and self._may_have_tasks]
        if not known:
            return []
        runtime = await self._get_runtime()
        return [self._with_live_progress(task, runtime) for task in await runtime.store.find_many(known, owner)]

    async def find_by_key(self, owner: str, idempotency_key: str) -> Task | None:
        """Return the task that `owner` submitted with this key; None if there is none. Raises `Overloaded`."""
        try:
            return await self.get(id_of_key(owner, idempotency_key), owner)
        except TaskNotFound:
            return None

    async def request_of(self, task: Task) -> TaskOperation:
        """Return the request of a task, to submit it again. Raises `FileNotFound`, `Overloaded` and `GatewayError`."""
        return await self._executor.read_request(task.kind, task.request)

    async def count_waiting(self, task: Task) -> int:
        """Return the number of tasks that wait for the same model before `task`, counted up to 1,000."""
        return await (await self._get_runtime()).store.count_waiting(task, _MAX_COUNTED)

    async def cancel(self, id: str, owner: str) -> Task:
        """Cancel a task of `owner` if it has not ended, and return it. Raises the errors of `get`."""
        task = await self.get(id, owner)
        if task.state not in FINAL_STATES:
            runtime = await self._get_runtime()
            await runtime.store.cancel(id)
            runtime.cancel_running(id)
            task = await self.get(id, owner)
        return task

    async def delete(self, id: str, owner: str) -> None:
        """Delete a task of `owner` with its outputs; it is cancelled first if it has not ended. Raises as `get`."""
        task = await self.cancel(id, owner)
        await self._files.delete(*(output.file for output in task.outputs))
        await (await self._get_runtime()).store.delete(id)

    async def list(
        self,
        owner: str,
        *,
        limit: int = 20,
        after: str | None = None,
        states: Collection[TaskState] = (),
        kinds: Collection[str] = (),
        oldest_first: bool = False,
    ) -> list[Task]:
        """Return up to `limit` tasks of `owner`, the newest first; with `after`, those that follow that task.

        `states` filters by state, `kinds` by operation; empty: all. Raises `TaskNotFound` if the task `after` does not
        exist, and `Overloaded`.
        """
        if not self._may_have_tasks:
            return []
        runtime = await self._get_runtime()
        last = await self.get(after, owner) if after else None
        return [
            self._with_live_progress(task, runtime)
            for task in await runtime.store.list(owner, states, last, limit, kinds, oldest_first=oldest_first)
        ]

    @property
    def _may_have_tasks(self) -> bool:
        return self._runtime is not None or self._open_task is not None or self._database.may_exist

    def _check(self, request: TaskOperation) -> None:
        """Raise the error that the model would raise for the request. A model that is unavailable is not checked."""
        sent = request.model_request()
        if sent is None:
            return
        try:
            model = self._catalog.get(sent.model, type(sent))
        except Overloaded:
            return
        model.codec(sent.operation).open(sent, model.card)

    def _queue_key(self, name: str) -> str:
        """Return the key by which `tasks_concurrency` counts: the name of the model, also where `name` is an alias."""
        try:
            return self._catalog.get(name).name
        except GatewayError:
            return name[:200].replace("\0", "")  # databases refuse NUL in texts

    def _with_live_progress(self, task: Task, runtime: "TaskRuntime") -> Task:
        """Return the task with its current progress if it runs here; the database has an older value."""
        percent = runtime.progress_of(task.id) if task.state == "running" else None
        return task if percent is None else replace(task, progress=max(task.progress, percent))

    async def _get_runtime(self) -> "TaskRuntime":
        """Return the runtime once the database is open. Raises `Overloaded`."""
        if self._closed:
            raise Overloaded("The service is stopping.", retry_after=RETRY_AFTER_SECONDS)
        if self._runtime is None:
            self._start_opening()
            with suppress(TimeoutError):
                async with asyncio.timeout(_OPEN_TIMEOUT_SECONDS):
                    await self._open_attempted.wait()
        if self._runtime is None:
            raise Overloaded(
                UNUSABLE_MESSAGE if self._problem else "The database of tasks does not respond.",
                retry_after=RETRY_AFTER_SECONDS,
            )
        return self._runtime

    def _start_opening(self) -> None:
        if self._open_task is None:
            self._open_task = asyncio.create_task(self._open_with_retries())

    async def _open_with_retries(self) -> None:
        """Open the database, and retry with backoff until it succeeds."""
        wait, began, logged_reason = 0.5, time.monotonic(), ""
        runtime_class = await asyncio.to_thread(_import_runtime)
        while True:
            try:
                self._runtime = await runtime_class.open(self._database, self._settings, self._executor, self.webhooks)
            except Exception as error:  # whatever the error, the database may be available later
                self._problem = await asyncio.to_thread(self._database.explain, error)
                reason = self._problem or str(error)[:500]
                # A repeated reason is logged at debug level: retries come every few seconds, and may go on for days.
                write = (
                    self._log.debug
                    if reason == logged_reason
                    else self._log.error
                    if self._problem
                    else self._log.warning
                )
                write("the database of tasks cannot be used", reason=reason)
                logged_reason = reason
            else:
                self._log.info("the database of tasks is open", seconds=round(time.monotonic() - began, 1))
                return
            finally:
                self._open_attempted.set()
            await asyncio.sleep(wait)
            wait = min(2 * wait, 5.0)


def _too_many_tasks(limit: int) -> RateLimited:
    return RateLimited(
        f"This API key has the maximum of {limit} open tasks. Wait until some have ended, or cancel some.",
        retry_after=RETRY_AFTER_SECONDS,
    )


def _import_runtime() -> "type[TaskRuntime]":
    from gateway.tasks.runtime import TaskRuntime

    return TaskRuntime
