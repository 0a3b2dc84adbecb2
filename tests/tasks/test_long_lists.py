"""Lists of one kind among many tasks of another: which rows are read."""

import asyncio
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.settings import Settings
from gateway.tasks.database import Database
from gateway.tasks.task_store import TaskStore
from tests.tasks.harness import OWNER

START = 1_800_000_000
NUM_ROWS = 4000
PER_SECOND = 3
"""Tasks that have the same time of creation."""
EVERY = 700
"""One of so many rows is that of a video."""


class ManyRows:
    """Stands in for the calls of the database: rows as DBOS returns them, in the order of their ids."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.rows = [
            SimpleNamespace(
                workflow_id=f"task_{number:032x}",
                status="SUCCESS",
                input={"args": ["generate_image" if number % EVERY else "generate_video", {"model": "film"}]},
                output={"outputs": []},
                error=None,
                attributes=None,
                created_at=(START + number // PER_SECOND) * 1000,
                dequeued_at=None,
                completed_at=None,
            )
            for number in range(NUM_ROWS)
        ]

    async def __call__(
        self, _: Any, *, limit: int, sort_desc: bool, start_time: str | None, end_time: str | None, **options: Any
    ) -> list[Any]:
        await asyncio.sleep(0)
        first = _milliseconds(start_time) if start_time else 0
        last = _milliseconds(end_time) if end_time else 10**15
        rows = [row for row in self.rows if first <= row.created_at <= last]
        self.sizes.append(limit)
        return (rows[::-1] if sort_desc else rows)[:limit]


def _milliseconds(time: str) -> int:
    return int(datetime.fromisoformat(time).timestamp() * 1000)


@pytest.mark.parametrize("oldest_first", [False, True])
async def test_rows_are_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, oldest_first: bool) -> None:
    store, rows = TaskStore(Database(Settings(state=tmp_path))), ManyRows()
    monkeypatch.setattr(store, "_call", rows)
    videos = [row.workflow_id for row in rows.rows[::EVERY]][:: 1 if oldest_first else -1]
    found: list[Any] = []
    while page := await store.list(
        OWNER, (), found[-1] if found else None, 4, {"generate_video"}, oldest_first=oldest_first
    ):
        found += page
    assert [task.id for task in found] == videos and len(videos) == 6
    assert max(rows.sizes) <= 500 and sum(rows.sizes) < 3 * NUM_ROWS
    await store.close()


async def test_many_tasks_of_one_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database does not order them all, so all of them are read at once."""
    store, rows = TaskStore(Database(Settings(state=tmp_path))), ManyRows()
    monkeypatch.setattr(store, "_call", rows)
    for row in rows.rows[1000:2500]:
        row.created_at = rows.rows[1000].created_at
    found = await store.list(OWNER, (), None, 100, {"generate_video"})
    assert [task.id for task in found] == [row.workflow_id for row in rows.rows[::EVERY]][::-1]
    await store.close()
