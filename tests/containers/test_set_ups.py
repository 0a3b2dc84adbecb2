"""The set-ups of docker-compose.yml as it stands: networks, names, published ports, the services beside the gateway.

The engine has a network namespace of its own, without a way out, so test_containers.py has to have built the models.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.containers.calls import chat, check_everything_is_served, outcome_of_stream
from tests.containers.conftest import ROOT
from tests.containers.engine import Engine, wait_until
from tests.containers.set_up import GATEWAY, OUTSIDE, SetUp, ask_prometheus, connects, is_ready, scraped, wait_ready

pytestmark = pytest.mark.containers


@pytest.fixture(scope="module")
def single(
    engine: Engine, logs: Path, record: Callable[[str, float, str], None], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SetUp]:
    """One gateway, one Triton, Prometheus."""
    set_up = SetUp(engine, ROOT, tmp_path_factory.mktemp("single"), "cpu,monitoring")
    try:
        started = time.monotonic()
        set_up.up()
        wait_ready([GATEWAY])
        record("one gateway in networks, from `up` until ready", time.monotonic() - started, "s")
        yield set_up
    finally:
        (logs / "single.log").write_text(set_up.compose("logs", "--no-color", check=False))
        set_up.compose("down", check=False)


@pytest.mark.parametrize("profiles", ["cpu", "gpu", "vllm", "trtllm", "replicas", "cpu,monitoring"])
def test_compose_2_takes_each_set_up(engine: Engine, tmp_path: Path, profiles: str) -> None:
    set_up = SetUp(engine, ROOT, tmp_path, profiles)
    services = set(set_up.compose("config", "--services").split())
    assert {"models"} < services
    if profiles in ("gpu", "vllm", "trtllm"):
        assert f"triton-{profiles}" in services and "triton" not in services
        text = set_up.compose("config")
        assert "driver: nvidia" in text


def test_gpus_are_all_that_a_set_up_with_gpus_lacks_here(engine: Engine, tmp_path: Path) -> None:
    set_up = SetUp(engine, ROOT, tmp_path, "gpu")
    with pytest.raises(AssertionError, match="could not select device driver"):
        set_up.up("triton-gpu")
    set_up.compose("down", check=False)


def test_one_gateway_serves_at_its_published_port(single: SetUp) -> None:
    check_everything_is_served(GATEWAY)
    for service in ("triton", "gateway", "prometheus"):
        single.wait_healthy(service, 120)


def test_triton_is_published_nowhere_and_reached_by_its_name(single: SetUp) -> None:
    (triton,), (gateway,) = single.containers("triton"), single.containers("gateway")
    assert not [port for port in (8000, 8001, 8002) if connects("127.0.0.1", port)]
    inspected = single.engine.inspect(triton)["NetworkSettings"]
    assert not any(inspected["Ports"].values()) and len(inspected["Networks"]) == 1
    lookup = "import socket; print(socket.gethostbyname('triton'))"
    assert single.engine.execute(gateway, "python", "-c", lookup).strip() == single.address(triton, "inner")


def test_gateways_reach_hosts_outside_and_triton_reaches_none(single: SetUp) -> None:
    (triton,), (gateway,) = single.containers("triton"), single.containers("gateway")
    assert single.reaches(gateway, OUTSIDE, 8000) and not single.reaches(triton, OUTSIDE, 8000)
    assert not single.reaches(triton, single.address(gateway, "default"), 1088)


def test_prometheus_scrapes_both_and_evaluates_the_rules(single: SetUp) -> None:
    wait_until(lambda: scraped("gateway") == scraped("triton") == 1, 120, "Prometheus does not reach its targets")
    groups = ask_prometheus("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    wait_until(lambda: bool(ask_prometheus("query", query="nv_inference_request_success > 0")["result"]), 60, "no data")
    assert len(rules) > 10 and not [rule["name"] for rule in rules if rule.get("lastError")]


def test_a_stream_goes_on_while_its_triton_stops(single: SetUp) -> None:
    with ThreadPoolExecutor(1) as pool:
        stream = pool.submit(outcome_of_stream, GATEWAY, 300)
        time.sleep(1)
        single.compose("stop", "triton")
        assert stream.result() == "whole"
    single.compose("start", "triton")
    wait_ready([GATEWAY])


def test_a_triton_that_has_left_and_returns_at_another_address_is_found(single: SetUp) -> None:
    """Its name does not resolve in between."""
    (before,) = single.containers("triton")
    single.compose("rm", "--stop", "--force", "triton")
    wait_until(lambda: not is_ready(GATEWAY), 30, "the gateway does not notice that Triton is gone")
    assert httpx.get(f"{GATEWAY}/health/live", trust_env=False).status_code == 200
    answer = httpx.post(f"{GATEWAY}/v1/embeddings", json={"model": "all-minilm-l6-v2", "input": "x"}, trust_env=False)
    assert answer.status_code == 503 and "retry-after" in answer.headers
    single.up("triton")
    wait_ready([GATEWAY])
    assert single.containers("triton") != [before]
    assert chat(GATEWAY).strip()
    output = single.compose("logs", "--no-color", "gateway")
    assert "never retrieved" not in output and "Traceback" not in output
