"""Runs tasks. DBOS dequeues them in threads and an event loop of its own; they run on the event loop of the gateway.

A process has one DBOS at most. A task that runs when the process ends stays in the database. It is queued again when
the gateway is back, or by another gateway that shares the database.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog
from dbos import DBOS, DBOSConfig, PortableWorkflowError, WorkflowSerializationFormat

from gateway.errors import GatewayError
from gateway.tasks import sqlite_dequeues, task_rows, task_store, webhook_store
from gateway.tasks.database import Database
from gateway.tasks.executor import TaskExecutor
from gateway.tasks.task_store import TaskStore
from gateway.tasks.webhook_sender import WebhookSender
from gateway.tasks.webhooks import Delivery

_MAX_RECOVERY_ATTEMPTS = 20
"""Runs of one task that the end of the gateway may interrupt. Then the task fails: it may be what ends the gateway."""
_MAX_WEBHOOK_RECOVERY_ATTEMPTS = 100
_POLL_SECONDS = 0.25
_WEBHOOKS_PER_OWNER = 4
"""Webhooks of one owner that are sent at a time, in all gateways together: a receiver may be slow on purpose."""
_WEBHOOKS_PER_GATEWAY = 32
_SUPPRESSED_LOGS = ("Exception encountered in asynchronous workflow", "Asyncio task cancelled for workflow")
"""Beginnings of DBOS's log lines about failed and cancelled tasks, with tracebacks. The gateway logs these itself."""

T = TypeVar("T")


@dataclass(slots=True)
class RunningTask:
    """A task that runs in this process. `percent` is its progress, 0 to 99."""

    asyncio_task: "asyncio.Task[dict[str, Any]]"
    percent: int = 0
    saved_percent: int = 0
    """The progress that the database has."""


class DbosWorker:
    """Passes the tasks of one database to a `TaskExecutor`. A process can have one worker at most."""

    def __init__(
        self,
        database: Database,
        store: TaskStore,
        name: str,
        executor: TaskExecutor,
        webhooks: WebhookSender,
        concurrency: int,
    ) -> None:
        """`name` identifies this gateway among those that share the database (`gateway.tasks.liveness`).

        `concurrency` is the number of tasks of one model that run at a time in all gateways together.
        """
        self.running_tasks: dict[str, RunningTask] = {}
        self._database = database
        self._store = store
        self._name = name
        self._executor = executor
        self._webhooks = webhooks
        self._running_webhooks: set[asyncio.Task[str]] = set()
        self._concurrency = concurrency
        self._loop = asyncio.get_running_loop()
        self._log = structlog.get_logger("gateway.tasks")

    async def launch(self) -> None:
        """Prepare the database and begin to run tasks.

        Raises the errors of the database, and `RuntimeError` if this process already has a worker.
        """
        global _worker
        if _worker is not None:
            raise RuntimeError("this process runs the tasks of another gateway already")
        _worker = self
        try:
            await _in_thread(self._launch)
        except BaseException:
            _worker = None
            raise

    async def recover(self, gateways: set[str]) -> None:
        """Queue the running tasks of dead `gateways` again."""
        # A private method, but the only safe way: it moves a task only while it still belongs to the dead gateway.
        await _in_thread(lambda: DBOS._recover_pending_workflows(sorted(gateways)))

    async def stop(self, patience: int) -> None:
        """Dequeue no more tasks, and wait up to `patience` seconds for the running ones."""
        global _worker
        await _in_thread(lambda: DBOS.destroy(workflow_completion_timeout_sec=patience if self.running_tasks else 0))
        for task in [*(run.asyncio_task for run in self.running_tasks.values()), *self._running_webhooks]:
            task.cancel()
        _worker = None

    def _launch(self) -> None:
        self._database.prepare()
        _configure_dbos_log()
        options = self._database.connect_options(patient=True)
        config: DBOSConfig = {
            "name": task_store.APPLICATION_NAME,
            "system_database_url": self._database.url,
            "application_version": task_store.FORMAT_VERSION,
            "executor_id": self._name,
            "serializer": task_store.SERIALIZER,
            "use_listen_notify": False,
            "log_level": "WARNING",
        }
        if options:
            config["db_engine_kwargs"] = {"connect_args": options, "pool_size": 10, "pool_pre_ping": True}
        try:
            dbos = DBOS(config=config)
            DBOS.launch()
            if self._database.path is not None:
                sqlite_dequeues.lock_dequeues(dbos._sys_db)
            DBOS.register_queue(
                task_store.QUEUE_NAME,
                partition_concurrency=self._concurrency,
                polling_interval_sec=_POLL_SECONDS,
                on_conflict="always_update",
            )
            DBOS.register_queue(
                webhook_store.QUEUE_NAME,
                partition_concurrency=_WEBHOOKS_PER_OWNER,
                worker_concurrency=_WEBHOOKS_PER_GATEWAY,
                polling_interval_sec=_POLL_SECONDS,
                on_conflict="always_update",
            )
        except BaseException:
            DBOS.destroy()
            raise

    async def execute(self, id: str, kind: str, request: dict[str, Any], labels: dict[str, Any]) -> dict[str, Any]:
        """Run a task on the gateway's event loop, and return its result as JSON. Called on DBOS's event loop."""
        running = asyncio.run_coroutine_threadsafe(self._execute(id, kind, request, labels), self._loop)
        return await asyncio.wrap_future(running)

    async def _execute(self, id: str, kind: str, request: dict[str, Any], labels: dict[str, Any]) -> dict[str, Any]:
        task: asyncio.Task[dict[str, Any]] | None = asyncio.current_task()
        assert task is not None
        run = self.running_tasks[id] = RunningTask(task)

        def advance(fraction: float) -> None:
            run.percent = max(run.percent, min(99, int(fraction * 100)))

        async def belongs_here() -> bool:
            return (await self._store.running_executors([id])).get(id) == self._name

        reports = self._webhooks.report_progress(id, labels, lambda: run.percent, self._store)
        try:
            outputs = await self._executor.execute(id, kind, request, advance, belongs_here)
            return task_rows.result_to_json(outputs)
        except GatewayError as error:
            raise _to_workflow_error(error) from None
        except Exception:
            self._log.exception("task failed", task=id)
            raise _to_workflow_error(GatewayError("The gateway failed because of an internal error.")) from None
        finally:
            if reports:
                reports.cancel()  # before the end of the task is stored, so that no report follows it
            if self.running_tasks.get(id) is run:
                del self.running_tasks[id]

    async def deliver(self, delivery: dict[str, Any]) -> str:
        """Send a webhook on the gateway's event loop, and return the outcome. Called on DBOS's event loop."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._deliver(delivery), self._loop))

    async def _deliver(self, delivery: dict[str, Any]) -> str:
        task: asyncio.Task[str] | None = asyncio.current_task()
        assert task is not None
        self._running_webhooks.add(task)
        task.add_done_callback(self._running_webhooks.discard)
        return await self._webhooks.deliver(Delivery(**delivery), self._store)


_worker: DbosWorker | None = None


@DBOS.workflow(
    name=task_store.WORKFLOW_NAME,
    max_recovery_attempts=_MAX_RECOVERY_ATTEMPTS,
    serialization_type=WorkflowSerializationFormat.PORTABLE,
)
async def _task(kind: str, request: dict[str, Any], labels: dict[str, Any] | None = None) -> dict[str, Any]:
    """The workflow of DBOS. It has no steps: a task is complete once its result is stored, and else starts over."""
    worker, id = _worker, DBOS.workflow_id
    if worker is None or id is None:
        raise asyncio.CancelledError  # the gateway shuts down; the task stays in the database
    return await worker.execute(id, kind, request, labels or {})


@DBOS.workflow(
    name=webhook_store.WORKFLOW_NAME,
    max_recovery_attempts=_MAX_WEBHOOK_RECOVERY_ATTEMPTS,
    serialization_type=WorkflowSerializationFormat.PORTABLE,
)
async def _webhook(delivery: dict[str, Any]) -> str:
    """One attempt to send a webhook. It starts over if the gateway ends meanwhile: events are sent at least once."""
    if _worker is None:
        raise asyncio.CancelledError  # as above
    return await _worker.deliver(delivery)


def _to_workflow_error(error: GatewayError) -> PortableWorkflowError:
    """Return the failure as the database stores it; `gateway.tasks.task_rows.task_from_row` reads it."""
    return PortableWorkflowError(
        error.message, type(error).__name__, error.code, {"status": error.status, "param": error.param}
    )


async def _in_thread(function: Callable[[], T]) -> T:
    """Run a blocking function in a daemon thread, which does not delay the end of the process."""
    future: Future[T] = Future()

    def run() -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            result = function()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)

    threading.Thread(target=run, name="tasks-dbos", daemon=True).start()
    return await asyncio.wrap_future(future)


class _LogFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(_SUPPRESSED_LOGS)


def _configure_dbos_log() -> None:
    """Send DBOS's log lines where all lines go: without a handler DBOS adds an output of its own."""
    log = logging.getLogger("dbos")
    if not log.handlers:
        log.addHandler(logging.NullHandler())
    with suppress(StopIteration):
        next(filter for filter in log.filters if isinstance(filter, _LogFilter))
        return
    log.addFilter(_LogFilter())
