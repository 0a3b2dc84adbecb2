"""Three gateways, three Tritons, Postgres, Valkey and a client, each on a host of its own."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.hosts.network import Host, Network
from tests.hosts.services import Gateway, PostgresHost, ScriptedTriton, ValkeyHost

KEY, LIMITED_KEY = "sk-hosts", "sk-hosts-limited"
RATE = 12
"""Requests of `LIMITED_KEY` in `RATE_SECONDS` at all gateways together."""
RATE_SECONDS = 20
GATEWAYS = ("gateway1", "gateway2", "gateway3")
TRITONS = ("triton1", "triton2", "triton3")


@dataclass(frozen=True, slots=True)
class Cluster:
    """All hosts and their programs. The test's own process is on the host `client`."""

    network: Network
    gateways: Sequence[Gateway]
    tritons: Sequence[ScriptedTriton]
    postgres: PostgresHost
    valkey: ValkeyHost

    @property
    def client(self) -> Host:
        return self.network.hosts["client"]


def caller_id(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:12]


@contextlib.contextmanager
def run_cluster(
    folder: Path, tools: Path, make_triton: Callable[[Host, Path], ScriptedTriton] = ScriptedTriton, **settings: Any
) -> Iterator[Cluster]:
    """Run all hosts, with this process on the host `client`, and remove them at the end."""
    network = Network("client", *GATEWAYS, *TRITONS, "postgres", "valkey")
    with network, network.inside(network.hosts["client"]):
        hosts = network.hosts
        tritons = [make_triton(hosts[name], folder / name) for name in TRITONS]
        postgres = PostgresHost(hosts["postgres"], folder / "postgres", tools)
        valkey = ValkeyHost(hosts["valkey"], folder / "valkey")
        common: dict[str, Any] = {
            "triton_urls": ",".join(triton.url for triton in tritons),
            "tasks": postgres.url("tasks"),
            "files": folder / "files",
            "files_key": "the key of all gateways of this test",
            "api_keys": f"{KEY},{LIMITED_KEY}",
            "rate_limits": f"{caller_id(LIMITED_KEY)}={RATE}/{RATE_SECONDS} seconds",
            "rate_limits_store": valkey.url,
            "tasks_concurrency": 3,
            **settings,
        }
        gateways = [Gateway(hosts[name], folder / name, **common) for name in GATEWAYS]
        services = (*tritons, postgres, valkey, *gateways)
        try:
            for service in services:
                service.start()
            for gateway in gateways:
                gateway.wait_ready()
            yield Cluster(network, gateways, tritons, postgres, valkey)
        finally:
            network.heal_all()
            for service in reversed(services):
                service.stop()
