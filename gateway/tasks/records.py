"""The tasks in the database, read and written in threads, so that neither the loop nor a caller waits for it long."""

import asyncio
import time
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, TypeVar

import sqlalchemy
import structlog
from dbos import (
    DBOSClient,
    DBOSPortableJSONSerializer,
    EnqueueOptions,
    PortableWorkflowError,
    WorkflowSerializationFormat,
)
from dbos import WorkflowStatus as Row
from dbos import error as dbos_errors
from sqlalchemy.exc import SQLAlchemyError

from gateway.errors import RETRY_AFTER, Overloaded, StorageFull
from gateway.tasks.database import UNUSABLE, Database, is_damage, is_full
from gateway.tasks.quota import Quota
from gateway.tasks.task import FINAL, Drawn, Failure, State, Task

APPLICATION = "tritonic"
QUEUE = "tritonic-tasks"
WORKFLOW = "tritonic.task"
VERSION = "1"
"""Of how requests are written down. A gateway leaves tasks of another version alone."""
JSON = DBOSPortableJSONSerializer()
"""DBOS would pickle by default: who can write to the database could then run code here."""

_PATIENCE = 5.0
"""Seconds that a caller waits for the database."""
_THREADS = 8
_STATES: dict[str, State] = {
    "ENQUEUED": "queued",
    "DELAYED": "queued",
    "PENDING": "running",
    "SUCCESS": "completed",
    "ERROR": "failed",
    "MAX_RECOVERY_ATTEMPTS_EXCEEDED": "failed",
    "CANCELLED": "cancelled",
}
_OPEN = [name for name, state in _STATES.items() if state not in FINAL]
_NEVER = Failure(500, "internal_error", "The service ended each time that it worked on this task, and gave it up.")

T = TypeVar("T")


class Records:
    """Every method raises `Overloaded` where the database does not answer in time, and `StorageFull` where it is."""

    def __init__(self, database: Database) -> None:
        engine = None
        if database.path is None:
            engine = sqlalchemy.create_engine(
                sqlalchemy.make_url(database.url).set(drivername="postgresql+psycopg"),
                pool_size=_THREADS,
                max_overflow=0,
                pool_timeout=_PATIENCE,
                pool_pre_ping=True,
                connect_args=database.connect_options(patient=False),
            )
        self._client = DBOSClient(
            system_database_url=None if engine else database.url,
            system_database_engine=engine,
            serializer=JSON,
            application_name=APPLICATION,
            lazy=True,
            retry_connection_errors=False,
        )
        self._quota = Quota(database, engine, WORKFLOW, _OPEN)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="tasks")
        self._free = asyncio.Semaphore(_THREADS)
        self._log = structlog.get_logger("gateway.tasks")

    async def add(self, id: str, owner: str, kind: str, model: str, request: dict[str, Any], most: int) -> bool:
        """Queue a task among those of `model`. False: there is one of this id.

        Raises `QuotaReached` where the owner has `most` open tasks, by whichever gateway they were taken.
        """
        options: EnqueueOptions = {
            "workflow_name": WORKFLOW,
            "queue_name": QUEUE,
            "workflow_id": id,
            "workflow_id_reuse_policy": "reject",
            "queue_partition_key": model,
            "authenticated_user": owner,
            "app_version": VERSION,
            "serialization_type": WorkflowSerializationFormat.PORTABLE,
            "attributes": {"progress": 0},
        }

        def enqueue(connection: sqlalchemy.Connection) -> None:
            self._client.enqueue_in_transaction(connection, options, kind, request)

        def add() -> bool:
            try:
                self._quota.within(owner, most, enqueue)
            except dbos_errors.DBOSWorkflowIDInUseError:
                return False
            return True

        async with self._quota.turn(owner):
            return await self._ask(add)

    async def find(self, id: str, owner: str) -> Task | None:
        """Return the task of this id, if it is `owner`'s."""
        rows = await self._ask(self._client.list_workflows, workflow_ids=[id], user=owner, name=WORKFLOW)
        return told(rows[0]) if rows else None

    async def list(self, owner: str, states: Collection[State], before: Task | None, limit: int) -> list[Task]:
        """Return the `limit` newest of an owner's tasks, or of those that come after the task `before`."""
        statuses = [name for name, state in _STATES.items() if state in states] if states else None
        until = None if before is None else datetime.fromtimestamp(before.created, UTC).isoformat()
        asked = limit + 50
        while True:
            rows = await self._ask(
                self._client.list_workflows,
                user=owner,
                name=WORKFLOW,
                status=statuses,
                end_time=until,
                limit=asked,
                sort_desc=True,
            )
            tasks = sorted(map(told, rows), key=_age, reverse=True)
            if len(rows) == asked:
                # SQLite knows the second alone (Python 3.11): the last one may not be here whole.
                tasks = [task for task in tasks if task.created > tasks[-1].created]
            if before is not None:
                tasks = [task for task in tasks if _age(task) < _age(before)]
            if len(tasks) >= limit or len(rows) < asked:
                return tasks[:limit]
            asked *= 4

    async def count_open(self, owner: str, most: int) -> int:
        """Return how many of an owner's tasks have not ended; no more than `most` are counted."""
        rows = await self._ask(
            self._client.list_workflows,
            user=owner,
            name=WORKFLOW,
            status=_OPEN,
            limit=most,
            load_input=False,
            load_output=False,
        )
        return len(rows)

    async def cancel(self, id: str) -> None:
        """Mark a task as cancelled where it has not ended; whoever works on it will see it."""
        await self._ask(self._client.cancel_workflows, [id])

    async def progress(self, id: str, percent: int) -> None:
        """Write down how far a task has come."""
        await self._ask(self._client.update_workflow_attributes, id, {"progress": percent})

    async def running(self, ids: Iterable[str] | None = None) -> dict[str, str]:
        """Return which tasks are worked on, of these or of all, and by which gateway each is."""
        rows = await self._ask(
            self._client.list_workflows,
            workflow_ids=None if ids is None else list(ids),
            name=WORKFLOW,
            status="PENDING",
            app_version=VERSION,
            load_input=False,
            load_output=False,
        )
        return {row.workflow_id: row.executor_id or "" for row in rows}

    async def forget(self, age: float) -> int:
        """Remove tasks that ended more than `age` seconds ago, some at a time. Return how many went."""
        before = datetime.fromtimestamp(time.time() - age, UTC).isoformat()
        rows = await self._ask(
            self._client.list_workflows,
            name=WORKFLOW,
            completed_before=before,
            limit=500,
            load_input=False,
            load_output=False,
        )
        if rows:
            await self._ask(self._client.delete_workflows, [row.workflow_id for row in rows])
        return len(rows)

    async def close(self) -> None:
        """Close the connections; a thread that still waits for the database is left to itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self._client.destroy)
        self._quota.close()

    async def _ask(self, ask: Callable[..., T], *arguments: Any, **options: Any) -> T:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_PATIENCE):
                # What is given up while it waits for a thread is never done: nobody is refused what happens later.
                await self._free.acquire()
                future = loop.run_in_executor(self._threads, lambda: ask(*arguments, **options))
                future.add_done_callback(self._answered)
                return await asyncio.shield(future)
        except (TimeoutError, SQLAlchemyError, dbos_errors.DBOSException, OSError) as error:
            self._log.warning("the database of the tasks failed", reason=(str(error) or "it is silent")[:300])
            if is_full(error):
                raise StorageFull("The database of the tasks is full: nothing was kept.") from error
            told = UNUSABLE if is_damage(error) else "The database of the tasks does not answer."
            raise Overloaded(told, retry_after=RETRY_AFTER) from error

    def _answered(self, future: "asyncio.Future[Any]") -> None:
        self._free.release()
        if not future.cancelled():
            future.exception()  # it was told, or nobody waited for it any more


def _age(task: Task) -> tuple[float, str]:
    return task.created, task.id


def told(row: Row) -> Task:
    """Return what the database says of a task."""
    kind, request = (row.input or {"args": ("", {})})["args"]
    state = _STATES[row.status]
    images: tuple[Drawn, ...] = ()
    error = None
    if state == "completed" and row.output:
        images = tuple(Drawn(**image) for image in row.output["images"])
    elif row.status == "MAX_RECOVERY_ATTEMPTS_EXCEEDED":
        error = _NEVER
    elif state == "failed":
        error = _failure(row.error)
    return Task(
        id=row.workflow_id,
        kind=kind,
        model=request.get("model", ""),
        state=state,
        progress=100 if state == "completed" else int((row.attributes or {}).get("progress", 0)),
        created=(row.created_at or 0) / 1000,
        started=row.dequeued_at / 1000 if row.dequeued_at else None,
        finished=row.completed_at / 1000 if row.completed_at else None,
        request=request,
        images=images,
        error=error,
    )


def _failure(error: Exception | None) -> Failure:
    if isinstance(error, PortableWorkflowError) and isinstance(error.data, dict):
        data: dict[str, Any] = dict(error.data)
        return Failure(data["status"], str(error.code), error.message, data["param"])
    return Failure(500, "internal_error", "The gateway failed on this task.")
