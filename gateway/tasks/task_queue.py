"""Work that survives: queued in a database, done when a model has room, and not lost when the gateway is killed."""

import asyncio
import hashlib
import re
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from gateway.errors import (
    RETRY_AFTER_SECONDS,
    GatewayError,
    InvalidRequest,
    Overloaded,
    RateLimited,
    TaskNotFound,
    UnsupportedOption,
)
from gateway.files.file_store import FileStore
from gateway.models.catalog import OPERATION_NAMES, Catalog
from gateway.observability.telemetry import Metrics
from gateway.operations.generate_image import GenerateImage
from gateway.settings import Settings
from gateway.tasks.database import UNUSABLE_MESSAGE, Database
from gateway.tasks.request_json import kind_of, serialize
from gateway.tasks.task import FINAL_STATES, QuotaExceeded, Task, TaskState, new_task_id

if TYPE_CHECKING:  # 50 MB and half a second, which only those pay who have tasks
    from gateway.tasks.runtime import TaskRuntime

_OPEN_TIMEOUT_SECONDS = 20.0
"""Seconds that the first callers wait for the database to be made. Once it has failed to be, nobody waits."""
_MAX_KEY_LENGTH = 256
_TASK_ID = re.compile(r"task_[0-9a-f]{32}")


class TaskQueue:
    """The tasks of all callers. DBOS is loaded, and SQLite's file made, when there is the first one."""

    def __init__(self, settings: Settings, catalog: Catalog, files: FileStore, metrics: Metrics) -> None:
        """Raises `DatabaseError` where the setting `tasks` names no database."""
        self._database = Database(settings)
        self._settings = settings
        self._catalog = catalog
        self._files = files
        self._metrics = metrics
        self._runtime: TaskRuntime | None = None
        self._open_task: asyncio.Task[None] | None = None
        self._open_attempted = asyncio.Event()
        self._closed = False
        self._problem: str | None = None
        """Why the database cannot be used, where no wait will mend that."""
        self._log = structlog.get_logger("gateway.tasks")

    def start(self) -> None:
        """Take up what is there, in the background."""
        if self._database.may_exist:
            self._start_opening()

    async def close(self) -> None:
        """Stop working. What is under way stays in the database, and is done when a gateway is back."""
        self._closed = True
        if self._open_task is not None:
            self._open_task.cancel()
            with suppress(asyncio.CancelledError):
                await self._open_task
        if self._runtime is not None:
            await self._runtime.close()

    async def submit(self, request: GenerateImage, owner: str, idempotency_key: str | None = None) -> Task:
        """Queue what `request` asks for, and return at once.

        The same request again under the `idempotency_key` that `owner` gave it is the same task. Raises
        `ModelNotFound`, `UnsupportedOption` and `InvalidRequest` for what no wait would mend, `RateLimited` where
        `owner` has as many open tasks as the setting `tasks_per_key` allows, `StorageFull`, and `Overloaded` where the
        database does not answer.
        """
        self._check(request)
        kept = (await self._get_runtime()).store
        id = new_task_id()
        if idempotency_key is not None:
            if not 0 < len(idempotency_key) <= _MAX_KEY_LENGTH:
                raise InvalidRequest(
                    f"An idempotency key has 1 to {_MAX_KEY_LENGTH} characters.", param="idempotency_key"
                )
            id = f"task_{hashlib.sha256(f'{owner} {idempotency_key}'.encode()).hexdigest()[:32]}"
        most = self._settings.tasks_per_key
        # Looked at twice: what is beyond is refused before its pictures are kept, and what passes here together with
        # others is counted again as it is added.
        if await kept.count_open(owner, most) >= most and await kept.find(id, owner) is None:
            raise _too_many_tasks(most)
        packed = await serialize(request, owner, self._files)
        try:
            added = await kept.add(id, owner, kind_of(request), self._queue_key(request.model), packed, most)
        except QuotaExceeded:
            if await kept.find(id, owner) is None:
                raise _too_many_tasks(most) from None
            added = False
        task = await self.get(id, owner)
        if not added and (task.kind, dict(task.request)) != (kind_of(request), packed):
            raise InvalidRequest("This idempotency key was used for another request.", param="idempotency_key")
        return task

    async def get(self, id: str, owner: str) -> Task:
        """Return a task of `owner`'s. Raises `TaskNotFound`, and `Overloaded` where the database does not answer."""
        if self._may_have_tasks:
            keeping = await self._get_runtime()
            task = await keeping.store.find(id, owner) if _is_task_id(id) else None
            if task is not None:
                return self._with_live_progress(task, keeping)
        raise TaskNotFound(f"There is no task {id[:64]!r} that this key has made, or no more.")

    async def cancel(self, id: str, owner: str) -> Task:
        """Stop a task of `owner`'s where it has not ended, and return it. Raises as `get` does."""
        task = await self.get(id, owner)
        if task.state not in FINAL_STATES:
            keeping = await self._get_runtime()
            await keeping.store.cancel(id)
            keeping.cancel_running(id)
            task = await self.get(id, owner)
        return task

    async def list(
        self, owner: str, *, limit: int = 20, after: str | None = None, states: Collection[TaskState] = ()
    ) -> list[Task]:
        """Return the newest tasks of `owner`, or those that were made before the task `after`.

        Raises `TaskNotFound` where there is no task `after`, and `Overloaded`.
        """
        if not self._may_have_tasks:
            return []
        keeping = await self._get_runtime()
        last = await self.get(after, owner) if after else None
        return [
            self._with_live_progress(task, keeping) for task in await keeping.store.list(owner, states, last, limit)
        ]

    @property
    def _may_have_tasks(self) -> bool:
        return self._runtime is not None or self._open_task is not None or self._database.may_exist

    def _check(self, request: GenerateImage) -> None:
        """Refuse at once what the model would refuse. A model that is away is waited for."""
        try:
            model = self._catalog.get(request.model)
        except Overloaded:
            return
        operation = OPERATION_NAMES[type(request)]
        if operation not in model.operations:
            offered = ", ".join(sorted(model.operations))
            raise UnsupportedOption(f"The model '{model.name}' cannot {operation}; it can: {offered}.", param="model")
        model.codec(operation).open(request, model.card)

    def _queue_key(self, name: str) -> str:
        """What tasks are counted by that may run at a time: the model, whatever a caller calls it."""
        try:
            return self._catalog.get(name).name
        except GatewayError:
            return name[:200].replace("\0", "")  # a database takes no such text

    def _with_live_progress(self, task: Task, keeping: "TaskRuntime") -> Task:
        """What runs here has come further than the database knows."""
        percent = keeping.progress_of(task.id) if task.state == "running" else None
        return task if percent is None else replace(task, progress=max(task.progress, percent))

    async def _get_runtime(self) -> "TaskRuntime":
        """Return what keeps the tasks, once it does. Raises `Overloaded`."""
        if self._closed:
            raise Overloaded("The service is stopping.", retry_after=RETRY_AFTER_SECONDS)
        if self._runtime is None:
            self._start_opening()
            with suppress(TimeoutError):
                async with asyncio.timeout(_OPEN_TIMEOUT_SECONDS):
                    await self._open_attempted.wait()
        if self._runtime is None:
            raise Overloaded(
                UNUSABLE_MESSAGE if self._problem else "The database of the tasks does not answer.",
                retry_after=RETRY_AFTER_SECONDS,
            )
        return self._runtime

    def _start_opening(self) -> None:
        if self._open_task is None:
            self._open_task = asyncio.create_task(self._open_with_retries())

    async def _open_with_retries(self) -> None:
        """Open the database, again and again until it is there."""
        wait, began, said = 0.5, time.monotonic(), ""
        keeping_class = await asyncio.to_thread(_import_runtime)
        while True:
            try:
                self._runtime = await keeping_class.open(
                    self._database, self._settings, self._catalog, self._files, self._metrics
                )
            except Exception as error:  # whatever the database says, it may be there later
                self._problem = await asyncio.to_thread(self._database.explain, error)
                reason = self._problem or str(error)[:500]
                # Said once: it is tried every few seconds, and what is wrong may stay so for days.
                write = self._log.debug if reason == said else self._log.error if self._problem else self._log.warning
                write("tasks cannot be kept", reason=reason)
                said = reason
            else:
                self._log.info("tasks are kept", seconds=round(time.monotonic() - began, 1))
                return
            finally:
                self._open_attempted.set()
            await asyncio.sleep(wait)
            wait = min(2 * wait, 5.0)


def _too_many_tasks(most: int) -> RateLimited:
    return RateLimited(
        f"{most} tasks of this key wait or are worked on, which is all that it may have: "
        "send more when some have ended, or cancel some.",
        retry_after=RETRY_AFTER_SECONDS,
    )


def _import_runtime() -> "type[TaskRuntime]":
    from gateway.tasks.runtime import TaskRuntime

    return TaskRuntime


def _is_task_id(id: str) -> bool:
    """Whether this could be the id of a task; nothing else is asked for in the database."""
    return _TASK_ID.fullmatch(id) is not None
