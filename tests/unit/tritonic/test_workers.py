"""Settings, leadership, metrics and shutdown of a gateway with several workers."""

import fcntl
import inspect
import os
import re
import signal
from pathlib import Path

import pytest

from gateway.worker_context import WorkerContext, prepare_metrics_files
from tests.unit.tritonic.worker_scenarios import run_scenario
from tritonic import settings
from tritonic.gateway_process import GatewayProcess
from tritonic.serve import DRAIN_SECONDS, SHUTDOWN_SECONDS
from tritonic.workers import GRACE_SECONDS


def test_rates_of_several_workers_need_a_redis() -> None:
    with pytest.raises(settings.SettingsError, match=r"TRITONIC_RATE_LIMITS_STORE: .* require a Redis"):
        settings.read(workers=2, rate_limits="60/minute")
    assert settings.read(workers=1, rate_limits="60/minute").workers == 1
    assert settings.read(workers=2, rate_limits="60/minute", rate_limits_store="redis://127.0.0.1").workers == 2


def test_each_worker_has_a_part_of_the_open_requests() -> None:
    with pytest.raises(settings.SettingsError, match="TRITONIC_MODEL_REQUESTS"):
        settings.read(workers=4, model_requests=3)
    with pytest.raises(settings.SettingsError, match="TRITONIC_WORKERS"):
        settings.read(workers=0)


def test_one_worker_leads_a_duty_until_it_ends(tmp_path: Path) -> None:
    first, second = WorkerContext(tmp_path, 0, 2), WorkerContext(tmp_path, 1, 2)
    assert first.try_lead("node") and first.try_lead("node")
    assert not second.try_lead("node")
    assert second.try_lead("another")
    child = os.fork()
    if child == 0:
        os._exit(0 if WorkerContext(tmp_path, 2, 3).try_lead("third") else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert second.try_lead("third"), "its leader has ended"
    assert not first.is_ending
    second.announce_shutdown()
    assert first.is_ending
    assert first.try_lead("node") and not second.try_lead("node"), "no worker takes over during a shutdown"
    for lock in (*first._locks.values(), *second._locks.values()):
        lock.close()


def test_a_single_process_leads_every_duty() -> None:
    assert WorkerContext().try_lead("node") and WorkerContext().is_ending


def test_restarted_workers_keep_counters_and_lose_gauges(tmp_path: Path) -> None:
    prepare_metrics_files(tmp_path, 3)
    for kind in ("counter", "histogram", "gauge_livesum"):
        (tmp_path / f"{kind}_3.db").write_bytes(b"total")
    prepare_metrics_files(tmp_path, 3)
    assert (tmp_path / "counter_3.db").read_bytes() == (tmp_path / "histogram_3.db").read_bytes() == b"total"
    assert not any((tmp_path / "gauge_livesum_3.db").read_bytes())


def test_live_gauges_are_in_the_files_that_are_cleared(tmp_path: Path) -> None:
    files = run_scenario("measured", tmp_path)
    alive = ["gauge_livemax_1.db", "gauge_livesum_1.db"]
    assert files["ready"] == files["present"] == ["counter_1.db", *alive, "histogram_1.db"]
    assert files["kept"] == ["counter_1.db", "histogram_1.db"]


def test_a_gateway_without_a_startable_worker_ends(tmp_path: Path) -> None:
    assert run_scenario("failing", tmp_path) == 0


def test_workers_that_ignore_the_signal_to_stop_are_ended(tmp_path: Path) -> None:
    assert run_scenario("deaf", tmp_path) == {"ended_by": signal.SIGTERM, "children": False}


def test_orphans_of_workers_are_reaped(tmp_path: Path) -> None:
    assert run_scenario("orphaned", tmp_path) == signal.SIGTERM


def test_workers_are_killed_before_their_parent_is() -> None:
    """Responses finish, then the parent kills the workers, and only then would `up` or Docker kill the parent."""
    grace = inspect.signature(GatewayProcess).parameters["grace"].default
    assert DRAIN_SECONDS < GRACE_SECONDS < SHUTDOWN_SECONDS < grace
    compose = (Path(__file__).parents[3] / "docker-compose.yml").read_text()
    assert all(int(seconds) > GRACE_SECONDS for seconds in re.findall(r"stop_grace_period: (\d+)s", compose))


def test_folders_of_killed_gateways_are_removed(tmp_path: Path) -> None:
    stale, used, new = (tmp_path / f"tritonic-workers-{name}" for name in ("stale", "used", "new"))
    for folder in (stale, used, new):
        folder.mkdir()
        (folder / "alive").touch()
        if folder is not new:
            os.utime(folder / "alive", (1, 1))
    with (used / "alive").open("w") as alive:
        os.utime(used / "alive", (1, 1))
        fcntl.flock(alive, fcntl.LOCK_EX)
        assert run_scenario("failing", tmp_path) == 0
    assert sorted(tmp_path.iterdir()) == sorted([used, new])
