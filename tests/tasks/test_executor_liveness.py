"""Who is alive: by locks that end with whoever holds them."""

import multiprocessing
import time
from pathlib import Path

import psycopg
import pytest

from gateway.settings import Settings
from gateway.tasks.database import Database, DatabaseError, check_settings
from gateway.tasks.liveness import ExecutorLiveness, ExecutorSlot
from tests.tasks.postgres import Postgres


def test_the_successor_takes_the_seat_of_the_dead(tmp_path: Path) -> None:
    first, second = ExecutorSlot(tmp_path), ExecutorSlot(tmp_path)
    assert first.name != second.name and first.live_names() == second.live_names() == {first.name, second.name}
    gone = first.name
    first.release()
    assert second.live_names() == {second.name}
    third = ExecutorSlot(tmp_path)
    assert third.name == gone and second.live_names() == {gone, second.name}


def _hold_slot(folder: Path, told: "multiprocessing.SimpleQueue[str]") -> None:
    seat = ExecutorSlot(folder)
    told.put(seat.name)
    multiprocessing.Event().wait()


def test_a_killed_process_leaves_its_seat(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    told = spawn.SimpleQueue()
    process = spawn.Process(target=_hold_slot, args=(tmp_path, told), daemon=True)
    process.start()
    name = told.get()
    own = ExecutorSlot(tmp_path)
    assert own.name != name and own.live_names() == {own.name, name}
    process.kill()
    process.join()
    assert own.live_names() == {own.name} and ExecutorSlot(tmp_path).name == name


def test_a_folder_that_was_copied_stands_for_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seat = ExecutorSlot(tmp_path)
    seat.release()
    monkeypatch.setattr("socket.gethostname", lambda: "another-machine")
    assert ExecutorSlot(tmp_path).name.startswith("another-machine-") and not seat.name.startswith("another-machine-")


def test_those_who_share_a_postgres_see_one_another(postgres: Postgres, tmp_path: Path) -> None:
    def roll(name: str) -> tuple[ExecutorLiveness, str]:
        seat = ExecutorSlot(tmp_path / name)
        return ExecutorLiveness(
            Database(Settings(tasks=postgres.url("postgres"), state=tmp_path / name)), seat
        ), seat.name

    (one, first), (two, second) = roll("one"), roll("two")
    assert one.find_dead({first, second, "gone"}) == {second, "gone"}, "the second has not come yet"
    assert two.find_dead(set()) == set()
    assert one.find_dead({first, second, "gone"}) == {"gone"} == two.find_dead({first, second, "gone"})
    # A connection that is ended from outside: absent, until the gateway looks again.
    with psycopg.connect(postgres.url("postgres"), autocommit=True) as admin:
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tritonic'")
    for broken in (one, two):
        with pytest.raises(psycopg.Error):
            broken.find_dead(set())
        broken.find_dead(set())
    assert one.find_dead({second, "gone"}) == {"gone"} == two.find_dead({first, "gone"})
    two.release()
    deadline = (
        time.monotonic() + 20
    )  # the server lets go of what a closed connection held when it has seen that it is closed
    while one.find_dead({second}) != {second}:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("wrong", ["mysql://host/tasks", "tasks.sqlite", "sqlite:tasks"])
def test_a_database_that_cannot_be_is_refused_at_the_start(wrong: str) -> None:
    with pytest.raises(DatabaseError, match="TRITONIC_TASKS"):
        check_settings(Settings(tasks=wrong))


def test_a_password_is_not_told() -> None:
    with pytest.raises(DatabaseError) as refused:
        check_settings(Settings(tasks="postgresl://user:secret@host/tasks"))
    assert "secret" not in str(refused.value)


def test_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    database = Database(Settings(state=tmp_path / "state"))
    assert not database.may_exist
    database.prepare()
    assert database.may_exist and database.path is not None
    assert database.path.stat().st_mode & 0o777 == 0o600
