"""Keeps the tasks of one gateway: its seat, its worker, and what has to be seen to again and again."""

import asyncio
import time
from contextlib import suppress

import psycopg
import structlog

from gateway.errors import GatewayError
from gateway.files.file_store import FileStore
from gateway.models.catalog import Catalog
from gateway.observability.telemetry import Metrics
from gateway.settings import Settings
from gateway.tasks.database import Database
from gateway.tasks.dbos_worker import DbosWorker
from gateway.tasks.executor import TaskExecutor
from gateway.tasks.liveness import ExecutorLiveness, ExecutorSlot
from gateway.tasks.task_store import TaskStore

_SYNC_INTERVAL_SECONDS = 1.0
"""Seconds between two looks at what was cancelled elsewhere, and two writes of progress."""
_LIVENESS_INTERVAL_SECONDS = 3.0
"""Seconds between two looks at which gateways are alive."""
_DEAD_AFTER_SECONDS = 10.0
"""Seconds that a gateway has to be absent: one that lost its connection to Postgres alone is back sooner."""
_CLEANUP_INTERVAL_SECONDS = 3600.0
_DRAIN_SECONDS = 4
_CLOSE_TIMEOUT_SECONDS = 9.0
"""Seconds that stopping may take in all. A database that hangs then does not keep the gateway from ending."""


class TaskRuntime:
    """Made by `open`."""

    def __init__(
        self, database: Database, seat: ExecutorSlot, records: TaskStore, worker: DbosWorker, retention: float
    ) -> None:
        self.store = records
        self._slot = seat
        self._worker = worker
        self._liveness = ExecutorLiveness(database, seat)
        self._dead_after = _DEAD_AFTER_SECONDS if database.path is None else 0.0
        self._retention = retention
        self._dead_since: dict[str, float] = {}
        self._log = structlog.get_logger("gateway.tasks")
        self._watch_task = asyncio.create_task(self._watch())

    @classmethod
    async def open(
        cls, database: Database, settings: Settings, catalog: Catalog, files: FileStore, metrics: Metrics
    ) -> "TaskRuntime":
        """Take a seat and begin to work. Raises whatever the database does."""
        seat = await asyncio.to_thread(ExecutorSlot, database.liveness_folder)
        try:
            performer = TaskExecutor(catalog, files, metrics, settings.tasks_patience)
            worker = DbosWorker(database, seat.name, performer, settings.tasks_concurrency)
            await worker.launch()
        except BaseException:
            seat.release()
            raise
        return cls(database, seat, TaskStore(database), worker, settings.tasks_retention)

    def progress_of(self, id: str) -> int | None:
        """How far a task has come that is worked on here; None for the others."""
        run = self._worker.running_tasks.get(id)
        return run.percent if run else None

    def cancel_running(self, id: str) -> None:
        """Stop working on a task, if it is worked on here."""
        if run := self._worker.running_tasks.get(id):
            run.asyncio_task.cancel()

    async def close(self) -> None:
        """Stop working, and leave."""
        self._watch_task.cancel()
        with suppress(asyncio.CancelledError):
            await self._watch_task
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_SECONDS):
                await self._worker.stop(_DRAIN_SECONDS)
                await self.store.close()
        except TimeoutError:
            self._log.warning("the database of the tasks hangs", seconds=_CLOSE_TIMEOUT_SECONDS)
        self._liveness.release()
        self._slot.release()

    async def _watch(self) -> None:
        roll_call = forget = 0.0
        while True:
            await asyncio.sleep(_SYNC_INTERVAL_SECONDS)
            now = time.monotonic()
            try:
                await self._sync_with_database()
                if now >= roll_call:
                    roll_call = now + _LIVENESS_INTERVAL_SECONDS
                    await self._requeue_tasks_of_dead(now)
                if now >= forget:
                    forget = now + _CLEANUP_INTERVAL_SECONDS
                    while await self.store.delete_older_than(self._retention):
                        pass
            except (GatewayError, psycopg.Error, OSError) as error:
                self._log.debug("the database of the tasks does not answer", reason=str(error)[:200])
                self._dead_since.clear()  # nobody can be seen to be absent now
            except Exception:
                self._log.exception("looking after tasks failed")

    async def _sync_with_database(self) -> None:
        """Stop what was cancelled or taken over elsewhere, and write down how far the rest has come."""
        runs = dict(self._worker.running_tasks)
        if not runs:
            return
        ours = await self.store.running_executors(runs)
        for id, run in runs.items():
            if ours.get(id) != self._slot.name:
                # One that is done may still be here for a moment: then there is nothing to stop.
                run.asyncio_task.cancel()
            elif run.percent != run.saved_percent and not run.asyncio_task.done():
                run.saved_percent = run.percent
                await self.store.save_progress(id, run.percent)

    async def _requeue_tasks_of_dead(self, now: float) -> None:
        """Queue again what gateways have under way that were absent for long enough."""
        names = set((await self.store.running_executors()).values()) - {"", self._slot.name}
        absent = await asyncio.to_thread(self._liveness.find_dead, names)
        self._dead_since = {name: self._dead_since.get(name, now) for name in absent}
        gone = {name for name, since in self._dead_since.items() if now - since >= self._dead_after}
        if gone:
            self._log.warning("tasks of gateways that are gone are queued again", gateways=sorted(gone))
            await self._worker.recover(gone)
