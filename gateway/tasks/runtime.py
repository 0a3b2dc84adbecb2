"""Runs the tasks of one gateway: its slot, its worker, and periodic maintenance."""

import asyncio
import time
from contextlib import suppress

import psycopg
import structlog

from gateway.errors import GatewayError
from gateway.settings import Settings
from gateway.tasks.database import Database
from gateway.tasks.dbos_worker import DbosWorker
from gateway.tasks.executor import TaskExecutor
from gateway.tasks.liveness import ExecutorLiveness, ExecutorSlot
from gateway.tasks.task_store import TaskStore
from gateway.tasks.webhook_sender import WebhookSender

_SYNC_INTERVAL_SECONDS = 1.0
"""Interval at which cancellations are read from the database, progress is written to it, and webhooks of tasks that
have ended are released, in seconds."""
_LIVENESS_INTERVAL_SECONDS = 3.0
"""Interval of the search for dead gateways, in seconds."""
_DEAD_AFTER_SECONDS = 10.0
"""Seconds without a sign of life after which a gateway counts as dead. A lost connection to Postgres is back sooner."""
_CLEANUP_INTERVAL_SECONDS = 3600.0
_DRAIN_SECONDS = 4
_CLOSE_TIMEOUT_SECONDS = 9.0
"""Most time of a shutdown, in seconds: a database that hangs does not delay it further."""


class TaskRuntime:
    """The tasks of one gateway while their database is open. Created by `open`."""

    def __init__(
        self, database: Database, slot: ExecutorSlot, store: TaskStore, worker: DbosWorker, retention: float
    ) -> None:
        self.store = store
        self._slot = slot
        self._worker = worker
        self._liveness = ExecutorLiveness(database, slot)
        self._dead_after = _DEAD_AFTER_SECONDS if database.path is None else 0.0
        self._retention = retention
        self._dead_since: dict[str, float] = {}
        self._log = structlog.get_logger("gateway.tasks")
        self._watch_task = asyncio.create_task(self._watch())

    @classmethod
    async def open(
        cls, database: Database, settings: Settings, executor: TaskExecutor, webhooks: WebhookSender
    ) -> "TaskRuntime":
        """Take a slot and begin to run tasks. Raises the errors of the database."""
        slot = await asyncio.to_thread(ExecutorSlot, database.liveness_folder)
        store = TaskStore(database)
        try:
            worker = DbosWorker(database, store, slot.name, executor, webhooks, settings.tasks_concurrency)
            await worker.launch()
        except BaseException:
            slot.release()
            await store.close()
            raise
        return cls(database, slot, store, worker, settings.tasks_retention)

    def progress_of(self, id: str) -> int | None:
        """Return the progress of a task that runs here, in percent; None for other tasks."""
        run = self._worker.running_tasks.get(id)
        return run.percent if run else None

    def cancel_running(self, id: str) -> None:
        """Cancel a task if it runs here."""
        if run := self._worker.running_tasks.get(id):
            run.asyncio_task.cancel()

    async def close(self) -> None:
        """Stop running tasks, and release the slot."""
        self._watch_task.cancel()
        with suppress(asyncio.CancelledError):
            await self._watch_task
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_SECONDS):
                await self._worker.stop(_DRAIN_SECONDS)
                await self.store.close()
        except TimeoutError:
            self._log.warning("the database of tasks does not respond", seconds=_CLOSE_TIMEOUT_SECONDS)
        self._liveness.release()
        self._slot.release()

    async def _watch(self) -> None:
        next_liveness = next_cleanup = 0.0
        while True:
            await asyncio.sleep(_SYNC_INTERVAL_SECONDS)
            now = time.monotonic()
            try:
                await self._sync_with_database()
                if now >= next_liveness:
                    next_liveness = now + _LIVENESS_INTERVAL_SECONDS
                    await self._requeue_tasks_of_dead(now)
                await self.store.webhooks.release_due()
                if now >= next_cleanup:
                    next_cleanup = now + _CLEANUP_INTERVAL_SECONDS
                    while await self.store.delete_older_than(self._retention):
                        pass
            except (GatewayError, psycopg.Error, OSError) as error:
                self._log.debug("the database of tasks does not respond", reason=str(error)[:200])
                self._dead_since.clear()  # without the database, liveness is unknown
            except Exception:
                self._log.exception("maintenance of tasks failed")

    async def _sync_with_database(self) -> None:
        """Cancel tasks that were cancelled or taken over elsewhere, and save the progress of the others."""
        runs = dict(self._worker.running_tasks)
        if not runs:
            return
        executors = await self.store.running_executors(runs)
        for id, run in runs.items():
            if executors.get(id) != self._slot.name:
                # A task that has just completed may still be listed here; cancelling it does nothing.
                run.asyncio_task.cancel()
            elif run.percent != run.saved_percent and not run.asyncio_task.done():
                run.saved_percent = run.percent
                await self.store.save_progress(id, run.percent)

    async def _requeue_tasks_of_dead(self, now: float) -> None:
        """Queue the running tasks of dead gateways again."""
        names = set((await self.store.running_executors()).values()) - {"", self._slot.name}
        dead = await asyncio.to_thread(self._liveness.find_dead, names)
        self._dead_since = {name: self._dead_since.get(name, now) for name in dead}
        expired = {name for name, since in self._dead_since.items() if now - since >= self._dead_after}
        if not expired:
            return
        with self._slot.locked(expired) as gone:
            if gone:
                self._log.warning("tasks of dead gateways are queued again", gateways=sorted(gone))
                await self._worker.recover(gone)
