"""Detection of dead gateways by locks that end with their holders."""

import multiprocessing
import time
from pathlib import Path

import psycopg
import pytest
from pydantic import SecretStr

from gateway.settings import Settings
from gateway.tasks.database import Database, DatabaseError, check_settings
from gateway.tasks.liveness import ExecutorLiveness, ExecutorSlot
from tests.tasks.postgres import Postgres


def test_successor_takes_the_slot_of_a_dead_gateway(tmp_path: Path) -> None:
    first, second = ExecutorSlot(tmp_path), ExecutorSlot(tmp_path)
    assert first.name != second.name and first.live_names() == second.live_names() == {first.name, second.name}
    gone = first.name
    first.release()
    assert second.live_names() == {second.name}
    third = ExecutorSlot(tmp_path)
    assert third.name == gone and second.live_names() == {gone, second.name}


def test_the_name_of_a_dead_gateway_is_reserved_while_its_tasks_are_requeued(tmp_path: Path) -> None:
    first, second = ExecutorSlot(tmp_path), ExecutorSlot(tmp_path)
    dead = first.name
    first.release()
    with second.locked({dead, "another-machine-1"}) as gone:
        assert gone == {dead, "another-machine-1"}
        assert ExecutorSlot(tmp_path).name not in {dead, second.name}
    successor = ExecutorSlot(tmp_path)
    with second.locked({dead}) as gone:
        assert successor.name == dead and gone == set()


def _hold_slot(folder: Path, names: "multiprocessing.SimpleQueue[str]") -> None:
    slot = ExecutorSlot(folder)
    names.put(slot.name)
    multiprocessing.Event().wait()


def test_killed_process_releases_its_slot(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    names = spawn.SimpleQueue()
    process = spawn.Process(target=_hold_slot, args=(tmp_path, names), daemon=True)
    process.start()
    name = names.get()
    own = ExecutorSlot(tmp_path)
    assert own.name != name and own.live_names() == {own.name, name}
    process.kill()
    process.join()
    assert own.live_names() == {own.name} and ExecutorSlot(tmp_path).name == name


def test_copied_folder_gets_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slot = ExecutorSlot(tmp_path)
    slot.release()
    monkeypatch.setattr("socket.gethostname", lambda: "another-machine")
    assert ExecutorSlot(tmp_path).name.startswith("another-machine-") and not slot.name.startswith("another-machine-")


def test_gateways_on_one_postgres_detect_one_another(postgres: Postgres, tmp_path: Path) -> None:
    def join(name: str) -> tuple[ExecutorLiveness, str]:
        slot = ExecutorSlot(tmp_path / name)
        return ExecutorLiveness(
            Database(Settings(tasks=SecretStr(postgres.url("postgres")), state=tmp_path / name)), slot
        ), slot.name

    (one, first), (two, second) = join("one"), join("two")
    assert one.find_dead({first, second, "gone"}) == {second, "gone"}, "the second gateway has not connected yet"
    assert two.find_dead(set()) == set()
    assert one.find_dead({first, second, "gone"}) == {"gone"} == two.find_dead({first, second, "gone"})
    # After its connection is terminated a gateway counts as dead until its next search.
    with psycopg.connect(postgres.url("postgres"), autocommit=True) as admin:
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tritonic'")
    for broken in (one, two):
        with pytest.raises(psycopg.Error):
            broken.find_dead(set())
        broken.find_dead(set())
    assert one.find_dead({second, "gone"}) == {"gone"} == two.find_dead({first, "gone"})
    two.release()
    # Postgres releases the locks of a closed connection once it notices that it is closed.
    deadline = time.monotonic() + 20
    while one.find_dead({second}) != {second}:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("patient", [False, True])
def test_postgres_notices_a_gateway_whose_machine_is_gone(postgres: Postgres, tmp_path: Path, patient: bool) -> None:
    """By Postgres's defaults, the locks of such a gateway would stay for two hours."""
    database = Database(Settings(tasks=SecretStr(postgres.url("postgres")), state=tmp_path))
    with psycopg.connect(database.url, **database.connect_options(patient=patient)) as connection:
        settings = dict(
            connection.execute("SELECT name, setting::int FROM pg_settings WHERE name LIKE 'tcp_%'").fetchall()
        )
    seconds = settings["tcp_keepalives_idle"] + settings["tcp_keepalives_interval"] * settings["tcp_keepalives_count"]
    assert settings["tcp_keepalives_idle"] > 0 and seconds <= 15
    assert 0 < settings["tcp_user_timeout"] <= 15_000


@pytest.mark.parametrize("url", ["mysql://host/tasks", "tasks.sqlite", "sqlite:tasks"])
def test_invalid_database_url_is_refused(url: str) -> None:
    with pytest.raises(DatabaseError, match="TRITONIC_TASKS"):
        check_settings(Settings(tasks=SecretStr(url)))


def test_error_does_not_contain_the_password() -> None:
    with pytest.raises(DatabaseError) as refused:
        check_settings(Settings(tasks=SecretStr("postgresl://user:secret@host/tasks")))
    assert "secret" not in str(refused.value)


def test_file_is_accessible_to_its_owner_only(tmp_path: Path) -> None:
    database = Database(Settings(state=tmp_path / "state"))
    assert not database.may_exist
    database.prepare()
    assert database.may_exist and database.path is not None
    assert database.path.stat().st_mode & 0o777 == 0o600
