"""Works on tasks: DBOS hands them out, from its own threads and loop, and the gateway's loop does what they ask.

DBOS is one for each process. What is under way here when the process ends stays in the database, and is handed out
again when the gateway is back, or by another one that shares the database.
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
from gateway.tasks import task_store
from gateway.tasks.database import Database
from gateway.tasks.executor import TaskExecutor

_MAX_RECOVERY_ATTEMPTS = 20
"""A task during which the gateway ended so often is given up: it may be what ends it."""
_POLL_SECONDS = 0.25
_SUPPRESSED_LOGS = ("Exception encountered in asynchronous workflow", "Asyncio task cancelled for workflow")
"""What DBOS tells of tasks that failed or were stopped, with a traceback; the gateway logs these by itself."""

T = TypeVar("T")


@dataclass(slots=True)
class RunningTask:
    """A task that is worked on here."""

    asyncio_task: "asyncio.Task[dict[str, Any]]"
    percent: int = 0
    saved_percent: int = 0
    """The progress that is in the database."""


class DbosWorker:
    """Hands tasks of one database to a `Performer`. There can be one in a process."""

    def __init__(self, database: Database, name: str, performer: TaskExecutor, concurrency: int) -> None:
        """`name` is that of this gateway among those that share the database (`gateway.tasks.liveness`)."""
        self.running_tasks: dict[str, RunningTask] = {}
        self._database = database
        self._name = name
        self._executor = performer
        self._concurrency = concurrency
        self._loop = asyncio.get_running_loop()
        self._log = structlog.get_logger("gateway.tasks")

    async def launch(self) -> None:
        """Prepare the database and begin to work.

        Raises what the database does, and `RuntimeError` where this process has a worker already.
        """
        global _worker
        if _worker is not None:
            raise RuntimeError("this process keeps the tasks of another gateway already")
        _worker = self
        try:
            await _in_thread(self._launch)
        except BaseException:
            _worker = None
            raise

    async def recover(self, gateways: set[str]) -> None:
        """Queue again what gateways that are gone had under way."""
        # Not public, and the only safe way: it moves a task only while it still belongs to the one that is gone.
        await _in_thread(lambda: DBOS._recover_pending_workflows(sorted(gateways)))

    async def stop(self, patience: int) -> None:
        """Take no more tasks, and wait up to `patience` seconds for those that are under way."""
        global _worker
        await _in_thread(lambda: DBOS.destroy(workflow_completion_timeout_sec=patience if self.running_tasks else 0))
        for run in list(self.running_tasks.values()):
            run.asyncio_task.cancel()
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
            DBOS(config=config)
            DBOS.launch()
            DBOS.register_queue(
                task_store.QUEUE_NAME,
                partition_concurrency=self._concurrency,
                polling_interval_sec=_POLL_SECONDS,
                on_conflict="always_update",
            )
        except BaseException:
            DBOS.destroy()
            raise

    async def execute(self, id: str, kind: str, request: dict[str, Any]) -> dict[str, Any]:
        """Do what a task asks, on the gateway's loop, and return its result as JSON. Runs on DBOS's own loop."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._execute(id, kind, request), self._loop))

    async def _execute(self, id: str, kind: str, request: dict[str, Any]) -> dict[str, Any]:
        work: asyncio.Task[dict[str, Any]] | None = asyncio.current_task()
        assert work is not None
        run = self.running_tasks[id] = RunningTask(work)

        def advance(fraction: float) -> None:
            run.percent = max(run.percent, min(99, int(fraction * 100)))

        try:
            outputs = await self._executor.execute(id, kind, request, advance)
            return task_store.result_to_json(outputs)
        except GatewayError as error:
            raise _to_workflow_error(error) from None
        except Exception:
            self._log.exception("task failed", task=id)
            raise _to_workflow_error(GatewayError("The gateway failed on this task.")) from None
        finally:
            if self.running_tasks.get(id) is run:
                del self.running_tasks[id]


_worker: DbosWorker | None = None


@DBOS.workflow(
    name=task_store.WORKFLOW_NAME,
    max_recovery_attempts=_MAX_RECOVERY_ATTEMPTS,
    serialization_type=WorkflowSerializationFormat.PORTABLE,
)
async def _task(kind: str, request: dict[str, Any]) -> dict[str, Any]:
    """What DBOS runs. There are no steps in it: a task is done when its result is written, and else not begun."""
    worker, id = _worker, DBOS.workflow_id
    if worker is None or id is None:
        raise asyncio.CancelledError  # the gateway stops; the task stays where it is
    return await worker.execute(id, kind, request)


def _to_workflow_error(error: GatewayError) -> PortableWorkflowError:
    """The failure as it is written down (`records.told` reads it)."""
    return PortableWorkflowError(
        error.message, type(error).__name__, error.code, {"status": error.status, "param": error.param}
    )


async def _in_thread(work: Callable[[], T]) -> T:
    """Await what blocks in a thread that does not keep the process from ending."""
    future: Future[T] = Future()

    def run() -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            result = work()
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
    """Send DBOS's lines where all lines go: it makes an output of its own unless there is one."""
    log = logging.getLogger("dbos")
    if not log.handlers:
        log.addHandler(logging.NullHandler())
    with suppress(StopIteration):
        next(known for known in log.filters if isinstance(known, _LogFilter))
        return
    log.addFilter(_LogFilter())
