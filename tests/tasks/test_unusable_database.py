"""An unusable state folder or database: reported at startup, hidden from callers, and usable again once repaired."""

import asyncio
import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import structlog.testing
from pydantic import SecretStr

from gateway import startup_checks
from gateway.app import create_app
from gateway.errors import Overloaded, StorageFull
from gateway.settings import Settings
from gateway.tasks.database import Database
from gateway.tasks.liveness import ExecutorSlot
from tests.fakes.triton import FakeTriton
from tests.tasks.harness import OWNER, TaskHarness, image_request, task_harness


def sql(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def write_truncated(path: Path) -> None:
    sql(path, "CREATE TABLE a (x)", *["INSERT INTO a VALUES (zeroblob(3000))"] * 50)
    os.truncate(path, 9000)


CORRUPTIONS: dict[str, tuple[Callable[[Path], object], str]] = {
    "garbage": (lambda path: path.write_bytes(b"garbage " * 1000), "is not an SQLite database, or is damaged"),
    "truncated": (write_truncated, "is not an SQLite database, or is damaged"),
    "folder": (lambda path: path.mkdir(), "is not a file"),
    "another's": (lambda path: sql(path, "CREATE TABLE workflow_status (x)"), "is the database of another application"),
}
LATE_CORRUPTIONS: dict[str, tuple[Callable[[Path], object], str]] = {
    "another version's": (
        lambda path: sql(path, "CREATE TABLE dbos_migrations (version)", "INSERT INTO dbos_migrations VALUES (99999)"),
        "is damaged, or has another version",
    ),
    "no folder of gateways": (lambda path: path.with_name("gateways").write_text(""), "is not a folder"),
}


async def submit_refused(home: TaskHarness) -> str:
    with pytest.raises(Overloaded) as error:
        await home.tasks.submit(image_request(), OWNER)
    assert error.value.status == 503 and error.value.retry_after
    return error.value.message


@pytest.mark.parametrize("damage", CORRUPTIONS)
def test_unusable_database_is_reported_at_startup(
    damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, words = CORRUPTIONS[damage]
    make(tmp_path / "tasks.sqlite")
    create_app(Settings(state=tmp_path))
    (line,) = [line for line in map(json.loads, capsys.readouterr().err.splitlines()) if line["level"] == "error"]
    assert words in line["reason"] and str(tmp_path / "tasks.sqlite") in line["reason"]
    assert "Move it away" in line["reason"] and "TRITONIC_TASKS" in line["reason"]


@pytest.mark.parametrize("damage", CORRUPTIONS | LATE_CORRUPTIONS)
async def test_callers_get_an_error_until_the_database_is_moved_away(
    damage: str, triton: FakeTriton, tmp_path: Path
) -> None:
    make, words = (CORRUPTIONS | LATE_CORRUPTIONS)[damage]
    path = tmp_path / "tasks.sqlite"
    make(path)
    with structlog.testing.capture_logs() as logs:
        async with task_harness(triton.url, tmp_path) as home:
            message = await submit_refused(home)
            assert message == "The database of tasks cannot be used; the log of the service has the reason."
            await asyncio.sleep(2.5)
            reasons = [line["reason"] for line in logs if line["event"] == "the database of tasks cannot be used"]
            errors = [line for line in logs if line["log_level"] == "error"]
            assert len(errors) == 1 and len(reasons) > 1, "retries are not logged as errors"
            assert words in reasons[0] and str(tmp_path) in reasons[0]
            for part in (path, path.with_name("gateways")):
                if part.exists():
                    part.rename(part.with_suffix(".aside"))
            for leftover in tmp_path.glob("tasks.sqlite-*"):
                leftover.unlink()
            async with asyncio.timeout(30):
                while True:
                    try:
                        task = await home.tasks.submit(image_request(), OWNER)
                        break
                    except Overloaded:
                        await asyncio.sleep(0.2)
            assert (await home.wait_finished(task.id)).state == "completed"


async def test_damage_of_an_open_database_is_reported(triton: FakeTriton, tmp_path: Path) -> None:
    async with task_harness(triton.url, tmp_path) as home:
        await home.wait_finished((await home.tasks.submit(image_request(), OWNER)).id)
        sql(tmp_path / "tasks.sqlite", "PRAGMA writable_schema=ON", "DROP TABLE workflow_input")
        assert "has the reason" in await submit_refused(home)


def test_full_disk_is_reported(tmp_path: Path) -> None:
    database = Database(Settings(state=tmp_path))
    reason = database.explain(sqlite3.OperationalError("database or disk is full"))
    assert reason == f"Tasks cannot be stored: the disk of {(tmp_path / 'tasks.sqlite').resolve()} is full."
    assert database.explain(sqlite3.OperationalError("database is locked")) is None, "a retry may succeed"


async def test_full_database_raises_storage_full(triton: FakeTriton, tmp_path: Path) -> None:
    async with task_harness(triton.url, tmp_path) as home:
        await home.wait_finished((await home.tasks.submit(image_request(), OWNER)).id)
        runtime = home.tasks._runtime
        assert runtime is not None
        with runtime.store._quota._engine.connect() as connection:  # the connection that adds tasks
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StorageFull) as error:
            for _ in range(50):
                await home.tasks.submit(image_request("long " * 2000), OWNER)
        assert error.value.status == 507


def test_missing_empty_or_busy_database_is_no_problem(tmp_path: Path) -> None:
    settings = Settings(state=tmp_path / "new")
    assert startup_checks.find_problems(settings) == []
    assert not (tmp_path / "new").exists(), "the check created something"
    database = Database(settings)
    database.prepare()
    assert startup_checks.find_problems(settings) == [], "an empty database is usable"
    sql(tmp_path / "new" / "tasks.sqlite", "CREATE TABLE dbos_migrations (version)")
    with closing(sqlite3.connect(tmp_path / "new" / "tasks.sqlite", isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        assert startup_checks.find_problems(settings) == [], "a locked database is usable"
    assert startup_checks.find_problems(Settings(state=tmp_path, tasks=SecretStr("postgresql://nowhere/none"))) == []


def test_state_that_is_no_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    (problem,) = startup_checks.find_problems(Settings(state=tmp_path / "state", files_key=SecretStr("given")))
    assert problem.endswith("is not a folder that this user can write to.")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_unreadable_database_is_reported(tmp_path: Path) -> None:
    (tmp_path / "tasks.sqlite").touch(mode=0o400)
    (problem,) = startup_checks.find_problems(Settings(state=tmp_path))
    assert "cannot read and write" in problem


@pytest.mark.parametrize("key", ["garbage", "folder"])
def test_unusable_signing_key_is_reported(key: str, tmp_path: Path) -> None:
    if key == "folder":
        (tmp_path / "files.key").mkdir()
    else:
        (tmp_path / "files.key").write_bytes(b"\xff\0")
    (problem,) = startup_checks.find_problems(Settings(state=tmp_path))
    assert problem.startswith("Files cannot be stored: ") and "files.key" in problem
    assert startup_checks.find_problems(Settings(state=tmp_path, files_key=SecretStr("given"))) == []
    shutil.rmtree(tmp_path)


def test_slot_with_an_unreadable_name_gets_a_new_one(tmp_path: Path) -> None:
    (tmp_path / "0.lock").write_bytes(b"\xff\xfe\0garbage")
    slot = ExecutorSlot(tmp_path)
    assert slot.name and slot.name.isprintable()
    (tmp_path / "1.lock").write_bytes(b"\xff\xfe")
    assert slot.live_names() == {slot.name}
    slot.release()
    assert (tmp_path / "0.lock").read_text() == slot.name
