"""Reads and writes tasks in the database, in threads and with a timeout, so that the event loop is never blocked."""

import asyncio
import operator
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, TypeVar

import sqlalchemy
import structlog
from dbos import (
    DBOSClient,
    DBOSPortableJSONSerializer,
    EnqueueOptions,
    WorkflowSerializationFormat,
)
from dbos import error as dbos_errors
from sqlalchemy.exc import SQLAlchemyError

from gateway.errors import RETRY_AFTER_SECONDS, Overloaded, StorageFull
from gateway.tasks import webhook_store
from gateway.tasks.database import UNUSABLE_MESSAGE, Database, is_corrupted, is_disk_full
from gateway.tasks.quota import Quota
from gateway.tasks.task import FINAL_STATES, Task, TaskState
from gateway.tasks.task_rows import STATES, task_from_row
from gateway.tasks.webhook_store import WebhookStore
from gateway.tasks.webhooks import Delivery

APPLICATION_NAME = "tritonic"
QUEUE_NAME = "tritonic-tasks"
WORKFLOW_NAME = "tritonic.task"
_WORKFLOW_NAMES = [WORKFLOW_NAME, webhook_store.WORKFLOW_NAME]
FORMAT_VERSION = "1"
"""Version of the JSON of requests. A gateway does not run tasks of another version."""
SERIALIZER = DBOSPortableJSONSerializer()
"""DBOS's default is pickle, which would let everyone who can write to the database run code in the gateway."""

_TIMEOUT_SECONDS = 5.0
"""Timeout of one call to the database, in seconds."""
_NUM_THREADS = 8
_SCAN_ROWS = 500
"""Rows that one call reads while tasks of a kind are searched. A row may have 100 kB, of a long prompt."""
_FINAL_STATUSES = [name for name, state in STATES.items() if state in FINAL_STATES]
_OPEN_STATUSES = [name for name, state in STATES.items() if state not in FINAL_STATES]
T = TypeVar("T")


class TaskStore:
    """The tasks of one database.

    Every method raises `Overloaded` if the database does not answer in time, and `StorageFull` if it is full.
    """

    def __init__(self, database: Database) -> None:
        engine = None
        if database.path is None:
            engine = sqlalchemy.create_engine(
                sqlalchemy.make_url(database.url).set(drivername="postgresql+psycopg"),
                pool_size=_NUM_THREADS,
                max_overflow=0,
                pool_timeout=_TIMEOUT_SECONDS,
                pool_pre_ping=True,
                connect_args=database.connect_options(patient=False),
            )
        self._client = DBOSClient(
            system_database_url=None if engine else database.url,
            system_database_engine=engine,
            serializer=SERIALIZER,
            application_name=APPLICATION_NAME,
            lazy=True,
            retry_connection_errors=False,
        )
        self._quota = Quota(database, engine, WORKFLOW_NAME, _OPEN_STATUSES)
        self.webhooks = WebhookStore(database, engine, self._client, self._call, FORMAT_VERSION, _FINAL_STATUSES)
        self._threads = ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="tasks")
        self._thread_slots = asyncio.Semaphore(_NUM_THREADS)
        self._log = structlog.get_logger("gateway.tasks")

    async def add(
        self,
        id: str,
        owner: str,
        kind: str,
        model: str,
        request: dict[str, Any],
        limit: int,
        webhook_url: str | None = None,
        labels: Mapping[str, Any] | None = None,
    ) -> bool:
        """Queue a task in the queue of `model`. Return False if a task with this id exists.

        `kind` is the name of the operation, `labels` those of the task. The end of the task is sent to `webhook_url`.
        Raises `QuotaExceeded` if the owner has `limit` open tasks, whichever gateways took them.
        """
        options: EnqueueOptions = {
            "workflow_name": WORKFLOW_NAME,
            "queue_name": QUEUE_NAME,
            "workflow_id": id,
            "workflow_id_reuse_policy": "reject",
            "queue_partition_key": model,
            "authenticated_user": owner,
            "app_version": FORMAT_VERSION,
            "serialization_type": WorkflowSerializationFormat.PORTABLE,
            "attributes": {"progress": 0},
        }

        def enqueue(connection: sqlalchemy.Connection) -> None:
            arguments = (kind, request, dict(labels)) if labels else (kind, request)
            self._client.enqueue_in_transaction(connection, options, *arguments)
            if webhook_url is not None:
                self.webhooks.park(connection, Delivery(task=id, owner=owner, url=webhook_url))

        def add() -> bool:
            try:
                self._quota.add_within_limit(owner, limit, enqueue)
            except dbos_errors.DBOSWorkflowIDInUseError:
                return False
            return True

        async with self._quota.submit_lock(owner):
            return await self._call(add)

    async def find(self, id: str, owner: str | None) -> Task | None:
        """Return the task with this id if it belongs to `owner`; None: whoever owns it."""
        rows = await self._call(self._client.list_workflows, workflow_ids=[id], user=owner, name=WORKFLOW_NAME)
        return task_from_row(rows[0]) if rows else None

    async def find_many(self, ids: Collection[str], owner: str) -> "list[Task]":
        """Return the tasks with these ids that belong to `owner`."""
        rows = await self._call(self._client.list_workflows, workflow_ids=[*ids], user=owner, name=WORKFLOW_NAME)
        return [task_from_row(row) for row in rows]

    async def list(
        self,
        owner: str,
        states: Collection[TaskState],
        last: Task | None,
        limit: int,
        kinds: Collection[str] = (),
        *,
        oldest_first: bool = False,
    ) -> list[Task]:
        """Return the first `limit` tasks of an owner, the newest first; with `last`, of those that follow that task.

        `kinds` filters by operation; empty: all.
        """
        statuses = [name for name, state in STATES.items() if state in states] if states else None
        from_time = None if last is None else datetime.fromtimestamp(last.created, UTC).isoformat()
        follows: Callable[[Any, Any], bool] = operator.gt if oldest_first else operator.lt
        num_rows = limit + 50
        found: list[Task] = []
        while True:
            rows = await self._call(
                self._client.list_workflows,
                user=owner,
                name=WORKFLOW_NAME,
                status=statuses,
                start_time=from_time if oldest_first else None,
                end_time=None if oldest_first else from_time,
                limit=num_rows,
                sort_desc=not oldest_first,
            )
            tasks = sorted(map(task_from_row, rows), key=_sort_key, reverse=not oldest_first)
            is_last = len(rows) < num_rows
            end = tasks[-1].created if tasks else 0.0
            if not is_last:
                # SQLite (of Python 3.11) has a resolution of one second: the last second may be incomplete here.
                tasks = [task for task in tasks if follows(end, task.created)]
            found += [
                task
                for task in tasks
                if (not kinds or task.kind in kinds) and (last is None or follows(_sort_key(task), _sort_key(last)))
            ]
            if len(found) >= limit or is_last:
                return found[:limit]
            # An owner may have many tasks of other kinds: they are read in pieces, and not kept.
            if tasks:
                from_time, num_rows = datetime.fromtimestamp(end, UTC).isoformat(), max(num_rows, _SCAN_ROWS)
            else:
                num_rows *= 4

    async def count_open(self, owner: str, limit: int) -> int:
        """Return the number of open tasks of an owner, counted up to `limit`."""
        rows = await self._call(
            self._client.list_workflows,
            user=owner,
            name=WORKFLOW_NAME,
            status=_OPEN_STATUSES,
            limit=limit,
            load_input=False,
            load_output=False,
        )
        return len(rows)

    async def count_waiting(self, task: Task, limit: int) -> int:
        """Return the number of tasks that wait in the queue of the same model before `task`, counted up to `limit`."""
        rows = await self._call(
            self._client.list_workflows,
            name=WORKFLOW_NAME,
            queue_name=QUEUE_NAME,
            status="ENQUEUED",
            limit=limit,
            load_input=False,
            load_output=False,
        )
        own = next((row for row in rows if row.workflow_id == task.id), None)
        if own is None:
            return 0
        return sum(
            row.queue_partition_key == own.queue_partition_key
            and ((row.created_at or 0) / 1000, row.workflow_id) < _sort_key(task)
            for row in rows
        )

    async def cancel(self, id: str) -> None:
        """Mark a task as cancelled if it has not ended. The gateway that runs it notices and stops."""
        await self._call(self._client.cancel_workflows, [id])

    async def delete(self, id: str) -> None:
        """Delete a task that has ended, with its webhook: nothing is sent any more."""
        await self._call(self._client.delete_workflows, [id])
        await self.webhooks.delete(id)

    async def save_progress(self, id: str, percent: int) -> None:
        """Store the progress of a task."""
        await self._call(self._client.update_workflow_attributes, id, {"progress": percent})

    async def running_executors(self, ids: Iterable[str] | None = None) -> dict[str, str]:
        """Return the gateway that runs each running task, by task id; `ids` None: for all tasks and webhooks."""
        rows = await self._call(
            self._client.list_workflows,
            workflow_ids=None if ids is None else list(ids),
            name=_WORKFLOW_NAMES,
            status="PENDING",
            app_version=FORMAT_VERSION,
            load_input=False,
            load_output=False,
        )
        return {row.workflow_id: row.executor_id or "" for row in rows}

    async def delete_older_than(self, age: float) -> int:
        """Delete up to 500 tasks and webhooks that ended more than `age` seconds ago. Return their number."""
        before = datetime.fromtimestamp(time.time() - age, UTC).isoformat()
        rows = await self._call(
            self._client.list_workflows,
            name=_WORKFLOW_NAMES,
            completed_before=before,
            limit=500,
            load_input=False,
            load_output=False,
        )
        if rows:
            await self._call(self._client.delete_workflows, [row.workflow_id for row in rows])
        return len(rows)

    async def close(self) -> None:
        """Close the connections. A thread that still waits for the database is not awaited."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self._client.destroy)
        self._quota.close()
        self.webhooks.close()

    async def _call(self, function: Callable[..., T], *arguments: Any, **options: Any) -> T:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                # A call that times out before it has a thread is never made, so it has no effect after its error.
                await self._thread_slots.acquire()
                future = loop.run_in_executor(self._threads, lambda: function(*arguments, **options))
                future.add_done_callback(self._release_thread)
                return await asyncio.shield(future)
        except (TimeoutError, SQLAlchemyError, dbos_errors.DBOSException, OSError) as error:
            self._log.warning("the database of tasks failed", reason=(str(error) or "timeout")[:300])
            if is_disk_full(error):
                raise StorageFull("The database of tasks is full: the task was not stored.") from error
            message = UNUSABLE_MESSAGE if is_corrupted(error) else "The database of tasks does not respond."
            raise Overloaded(message, retry_after=RETRY_AFTER_SECONDS) from error

    def _release_thread(self, future: "asyncio.Future[Any]") -> None:
        self._thread_slots.release()
        if not future.cancelled():
            future.exception()  # the caller got it, or no longer waits


def _sort_key(task: Task) -> tuple[float, str]:
    return task.created, task.id
