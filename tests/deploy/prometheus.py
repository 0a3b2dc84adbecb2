"""A real Prometheus that scrapes given targets, with the rules of deploy/prometheus."""

import asyncio
import contextlib
import os
import subprocess
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.deploy.dashboards import ROOT
from tritonic.ports import free_ports

RULES = ROOT / "deploy/prometheus/rules.yaml"


def find_prometheus() -> str | None:
    """Return the path of the program that `make chart` names, so that other runs of the tests do without it."""
    return os.environ.get("TRITONIC_PROMETHEUS")


@dataclass(frozen=True, slots=True)
class Prometheus:
    http: httpx.AsyncClient

    async def query_range(self, query: str, start: float, step: float) -> list[dict[str, Any]]:
        """Return the series of a query from `start` until now, a point every `step` seconds, as the API describes them.

        Raises AssertionError if Prometheus refuses the query.
        """
        parameters: dict[str, str | float] = {"query": query, "start": start, "end": time.time(), "step": step}
        answer = (await self.http.get("/api/v1/query_range", params=parameters)).json()
        assert answer["status"] == "success", f"{query}: {answer}"
        return answer["data"]["result"]

    async def rules(self) -> dict[str, str]:
        """Return the last error of each rule by its name; an empty text where it evaluates."""
        answer = (await self.http.get("/api/v1/rules")).json()
        return {
            rule["name"]: rule.get("lastError", "") for group in answer["data"]["groups"] for rule in group["rules"]
        }

    async def targets(self) -> dict[str, str]:
        """Return the health of each target by its job."""
        answer = (await self.http.get("/api/v1/targets")).json()
        return {target["labels"]["job"]: target["health"] for target in answer["data"]["activeTargets"]}


@contextlib.asynccontextmanager
async def run_prometheus(program: str, folder: Path, targets: Mapping[str, str]) -> AsyncIterator[Prometheus]:
    """Scrape each job's `host:port` once a second, and label it as a pod of that name."""
    jobs = [
        {
            "job_name": job,
            "static_configs": [{"targets": [address], "labels": {"namespace": "test", "pod": f"{job}-0"}}],
        }
        for job, address in targets.items()
    ]
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES)],
        "scrape_configs": jobs,
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    (port,) = free_ports(1, "127.0.0.1")
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                program,
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as http:
            async with asyncio.timeout(60):
                while True:
                    assert process.poll() is None, (folder / "prometheus.log").read_text()
                    with contextlib.suppress(httpx.TransportError):
                        if (await http.get("/-/ready")).status_code == 200:
                            break
                    await asyncio.sleep(0.1)
            yield Prometheus(http)
    finally:
        process.terminate()
        process.wait(30)
