"""Embeddings and images from the real embedded Triton on three hosts, one of them cut off, then killed."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.hosts.cluster import KEY, Cluster, run_cluster
from tests.hosts.faults import FaultLog
from tests.hosts.services import ROOT, RealTriton

pytestmark = pytest.mark.hosts

FAILOVER_SECONDS = 5.0
_WATCH_SECONDS = 12.0
_EMBEDDING_MODEL = "all-minilm-l6-v2"
_IMAGE_MODELS = ("shapes", "shapes-denoiser", "shapes-text-encoder", "shapes-vae-decoder", "shapes-vae-encoder")


@pytest.fixture(scope="module")
def real_cluster(tools: Path, folder: Path) -> Iterator[Cluster]:
    """Hosts of their own, with the default embedding model and the default image model."""
    source, repository = ROOT / "model_repository", folder / "models"
    repository.mkdir()
    for name in (_EMBEDDING_MODEL, *_IMAGE_MODELS):
        if not (source / name / "config.pbtxt").exists():
            pytest.skip(f"the model {name} is not built: make default-model")
        (repository / name).symlink_to((source / name).resolve())
    make = partial(RealTriton, repository=repository)
    with run_cluster(folder / "real", tools, make) as cluster:
        yield cluster


def _requests() -> list[tuple[str, dict[str, Any]]]:
    embedding = {"model": _EMBEDDING_MODEL, "input": ["three gateways", "three servers"]}
    image = {"model": "shapes", "prompt": "a red circle", "n": 1}
    return [("/v1/embeddings", embedding), ("/v1/images/generations", image)]


async def _send(http: httpx.AsyncClient, url: str, body: dict[str, Any], fault: float) -> tuple[float, float, int]:
    """Return the seconds after the fault at which a request was sent and answered, and its status."""
    began = time.monotonic() - fault
    response = await http.post(url, json=body)
    if response.status_code == 200:
        assert response.json()["data"]
    return began, time.monotonic() - fault, response.status_code


@pytest.mark.timeout(600)
async def test_real_servers_fail_over(real_cluster: Cluster, fault_log: FaultLog) -> None:
    triton = real_cluster.tritons[0]
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(headers=headers, trust_env=False, timeout=120) as http:
        for kind in ("cut", "kill"):
            for gateway in real_cluster.gateways:
                for path, body in _requests():
                    assert (await http.post(gateway.url + path, json=body)).status_code == 200
            if kind == "cut":
                for gateway in real_cluster.gateways:
                    real_cluster.network.cut(gateway.host, triton.host)
            else:
                await asyncio.to_thread(triton.kill)
            fault, sending = time.monotonic(), []
            while time.monotonic() - fault < _WATCH_SECONDS:
                for gateway in real_cluster.gateways:
                    for path, body in _requests():
                        sending.append(asyncio.create_task(_send(http, gateway.url + path, body, fault)))
                await asyncio.sleep(2.0)
            sent = await asyncio.gather(*sending)
            statuses = Counter(str(status) for _, _, status in sent)
            first = min(ended for _, ended, status in sent if status == 200)
            slowest = max(ended - began for began, ended, _ in sent if began >= FAILOVER_SECONDS)
            fault_log.write(
                "failover of real servers",
                kind=kind,
                first_success=round(first, 3),
                statuses=dict(statuses),
                slowest_after_5_s=round(slowest, 2),
            )
            assert first <= FAILOVER_SECONDS and set(statuses) == {"200"}
            assert slowest < 15.0, "a request went to the lost server; a busy machine needs seconds for an image"
            real_cluster.network.heal_all()
