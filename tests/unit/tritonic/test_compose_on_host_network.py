"""The deployment that `make containers` runs differs from docker-compose.yml only in networks, ports and one limit."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.containers.host_network import Ports, on_host_network

COMPOSE: dict[str, Any] = yaml.safe_load((Path(__file__).parents[3] / "docker-compose.yml").read_text())
PORTS = Ports(gateway=18190, grpc=18191, metrics=18192)


@pytest.fixture
def services() -> dict[str, Any]:
    return dict(on_host_network(COMPOSE, PORTS)["services"])


def test_the_ring_runs_the_services_of_the_default_set_up(services: dict[str, Any]) -> None:
    assert services.keys() == {"models", "triton", "gateway"}
    differing = {
        "networks",
        "network_mode",
        "ports",
        "profiles",
        "build",
        "environment",
        "healthcheck",
        "ulimits",
        "command",
    }
    for name, service in services.items():
        original = COMPOSE["services"][name]
        assert {key: value for key, value in service.items() if key not in differing} == {
            key: value for key, value in original.items() if key not in differing
        }
        assert service["network_mode"] == "host"
        assert service["build"] == original["build"] | {"network": "host"}


def test_ports_of_the_host_reach_servers_and_their_health_checks(services: dict[str, Any]) -> None:
    assert services["gateway"]["environment"]["TRITONIC_TRITON_URLS"] == "127.0.0.1:18191"
    assert services["gateway"]["environment"]["TRITONIC_PORT"] == "18190"
    assert services["gateway"]["healthcheck"]["test"] == ["CMD", "gateway-health"]  # it reads TRITONIC_PORT
    assert services["triton"]["command"] == ["triton-start", "--grpc-port=18191", "--metrics-port=18192"]
    assert services["triton"]["healthcheck"]["test"] == ["CMD", "triton-health", "127.0.0.1:18191"]


def test_the_compose_file_itself_stays_as_it_is() -> None:
    before = copy.deepcopy(COMPOSE)
    on_host_network(COMPOSE, PORTS)
    assert before == COMPOSE


def test_volumes_that_no_service_uses_are_left_out() -> None:
    assert on_host_network(COMPOSE, PORTS)["volumes"].keys() == {"model_repository", "secret", "scratch", "state"}
