"""Keeps the tasks of one gateway: its seat, its worker, and what has to be seen to again and again."""

import asyncio
import time
from contextlib import suppress

import psycopg
import structlog

from gateway.catalog import Catalog
from gateway.errors import GatewayError
from gateway.files.files import Files
from gateway.settings import Settings
from gateway.tasks.database import Database
from gateway.tasks.performing import Performer
from gateway.tasks.presence import Roll, Seat
from gateway.tasks.records import Records
from gateway.tasks.worker import Worker
from gateway.telemetry import Metrics

_GLANCE = 1.0
"""Seconds between two looks at what was cancelled elsewhere, and two writes of progress."""
_ROLL_CALL = 3.0
"""Seconds between two looks at which gateways are alive."""
_GRACE = 10.0
"""Seconds that a gateway has to be absent: one that lost its connection to Postgres alone is back sooner."""
_FORGET = 3600.0
_DRAIN = 4
_CLOSING = 9.0
"""Seconds that stopping may take in all. A database that hangs then does not keep the gateway from ending."""


class Keeping:
    """Made by `open`."""

    def __init__(self, database: Database, seat: Seat, records: Records, worker: Worker, retention: float) -> None:
        self.records = records
        self._seat = seat
        self._worker = worker
        self._roll = Roll(database, seat)
        self._grace = _GRACE if database.path is None else 0.0
        self._retention = retention
        self._absent: dict[str, float] = {}
        self._log = structlog.get_logger("gateway.tasks")
        self._watching = asyncio.create_task(self._watch())

    @classmethod
    async def open(
        cls, database: Database, settings: Settings, catalog: Catalog, files: Files, metrics: Metrics
    ) -> "Keeping":
        """Take a seat and begin to work. Raises whatever the database does."""
        seat = await asyncio.to_thread(Seat, database.presence_folder)
        try:
            performer = Performer(catalog, files, metrics, settings.tasks_patience)
            worker = Worker(database, seat.name, performer, settings.tasks_concurrency)
            await worker.launch()
        except BaseException:
            seat.leave()
            raise
        return cls(database, seat, Records(database), worker, settings.tasks_retention)

    def percent(self, id: str) -> int | None:
        """How far a task has come that is worked on here; None for the others."""
        run = self._worker.runs.get(id)
        return run.percent if run else None

    def stop(self, id: str) -> None:
        """Stop working on a task, if it is worked on here."""
        if run := self._worker.runs.get(id):
            run.work.cancel()

    async def close(self) -> None:
        """Stop working, and leave."""
        self._watching.cancel()
        with suppress(asyncio.CancelledError):
            await self._watching
        try:
            async with asyncio.timeout(_CLOSING):
                await self._worker.stop(_DRAIN)
                await self.records.close()
        except TimeoutError:
            self._log.warning("the database of the tasks hangs", seconds=_CLOSING)
        self._roll.leave()
        self._seat.leave()

    async def _watch(self) -> None:
        roll_call = forget = 0.0
        while True:
            await asyncio.sleep(_GLANCE)
            now = time.monotonic()
            try:
                await self._agree()
                if now >= roll_call:
                    roll_call = now + _ROLL_CALL
                    await self._take_over(now)
                if now >= forget:
                    forget = now + _FORGET
                    while await self.records.forget(self._retention):
                        pass
            except (GatewayError, psycopg.Error, OSError) as error:
                self._log.debug("the database of the tasks does not answer", reason=str(error)[:200])
                self._absent.clear()  # nobody can be seen to be absent now
            except Exception:
                self._log.exception("looking after tasks failed")

    async def _agree(self) -> None:
        """Stop what was cancelled or taken over elsewhere, and write down how far the rest has come."""
        runs = dict(self._worker.runs)
        if not runs:
            return
        ours = await self.records.running(runs)
        for id, run in runs.items():
            if ours.get(id) != self._seat.name:
                # One that is done may still be here for a moment: then there is nothing to stop.
                run.work.cancel()
            elif run.percent != run.told and not run.work.done():
                run.told = run.percent
                await self.records.progress(id, run.percent)

    async def _take_over(self, now: float) -> None:
        """Queue again what gateways have under way that were absent for long enough."""
        names = set((await self.records.running()).values()) - {"", self._seat.name}
        absent = await asyncio.to_thread(self._roll.absent, names)
        self._absent = {name: self._absent.get(name, now) for name in absent}
        gone = {name for name, since in self._absent.items() if now - since >= self._grace}
        if gone:
            self._log.warning("tasks of gateways that are gone are queued again", gateways=sorted(gone))
            await self._worker.recover(gone)
