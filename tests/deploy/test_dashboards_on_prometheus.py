"""Every panel's query returns data from a Prometheus that scrapes a gateway and a Triton under load.

`make chart` runs it; TRITONIC_DASHBOARD_PICTURE=FILE writes the panels as a picture.
"""

import asyncio
import os
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import pytest
import pytest_asyncio

from tests.deploy import dashboard_picture
from tests.deploy.dashboards import ROOT, Panel, load_panels, metric_names
from tests.deploy.prometheus import Prometheus, find_prometheus, run_prometheus
from tests.deploy.triton_metrics import SEEN, WITH_A_GPU, WITH_OTHER_ENGINES
from tests.wire.gateway_server import RunningGateway, run_gateway
from tritonic import default_models
from tritonic.embedded import EmbeddedTriton

LOAD_SECONDS = 30.0
RATE_INTERVAL = "10s"
"""The value of $__rate_interval: four scrapes or more."""

program = find_prometheus()
pytestmark = [
    pytest.mark.triton,
    pytest.mark.skipif(program is None, reason="`make chart` runs it, with the Prometheus that it fetches"),
    pytest.mark.asyncio(loop_scope="module"),
]
PANELS = [
    panel
    for panel in load_panels()
    if not any(metric_names(query) & (WITH_A_GPU | WITH_OTHER_ENGINES) for query, _ in panel.targets)
]


@dataclass(frozen=True, slots=True)
class Measured:
    prometheus: Prometheus
    triton_exposition: str
    start: float

    async def series(self, query: str, legend: str = "") -> list[dashboard_picture.Series]:
        """Return the series of a query that have a finite point."""
        results = await self.prometheus.query_range(query.replace("$__rate_interval", RATE_INTERVAL), self.start, 1)
        named = (
            (dashboard_picture.legend(legend, result["metric"]), dashboard_picture.points(result, self.start))
            for result in results
        )
        return [(name, points) for name, points in named if points]


@pytest.fixture(scope="module")
def triton() -> Iterator[EmbeddedTriton]:
    repository = Path(os.environ.get("TRITONIC_REPOSITORY") or ROOT / "model_repository").resolve()
    for model in default_models.default_models(repository):
        if model.is_missing(repository):
            subprocess.run(model.command, cwd=ROOT, check=True, capture_output=True)
    with EmbeddedTriton(repository) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def measured(triton: EmbeddedTriton, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Measured]:
    """A Prometheus that has seen half a minute of all operations, failures and disconnects."""
    assert program is not None
    folder = tmp_path_factory.mktemp("prometheus")
    async with run_gateway(triton.grpc_url, triton_secret=triton.secret) as gateway:
        gateway.http.timeout = httpx.Timeout(120)
        await gateway.until("/v1/models", lambda answer: len(answer.json()["data"]) >= 5, 120)
        targets = {"gateway": gateway.url.removeprefix("http://"), "triton": triton.metrics_url.split("/")[2]}
        async with run_prometheus(program, folder, targets) as prometheus:
            start = time.time()
            # Rates need a scrape from before the load.
            async with asyncio.timeout(30):
                while await prometheus.targets() != {"gateway": "up", "triton": "up"}:
                    await asyncio.sleep(0.2)
            await _load(gateway, LOAD_SECONDS)
            async with httpx.AsyncClient(trust_env=False) as http:
                exposition = (await http.get(triton.metrics_url)).text
            await asyncio.sleep(2)
            yield Measured(prometheus, exposition, start)


async def _load(gateway: RunningGateway, seconds: float) -> None:
    """Send requests of all kinds for some seconds."""
    end = time.monotonic() + seconds
    models = {model["id"]: model for model in (await gateway.http.get("/v1/models")).json()["data"]}
    names = [model.name for model in default_models.default_models(ROOT / "model_repository")]
    chat, embedding, image, video, transcription, speech = names
    assert set(names) <= set(models)

    async def post(path: str, body: dict[str, object]) -> None:
        while time.monotonic() < end:
            assert (await gateway.http.post(path, json=body)).status_code in (200, 404)
            await asyncio.sleep(0.2)

    async def disconnect() -> None:
        """Read the first bytes of a stream, and leave."""
        body = {"model": chat, "messages": [{"role": "user", "content": "Count."}], "stream": True, "max_tokens": 500}
        while time.monotonic() < end:
            async with gateway.http.stream("POST", "/v1/chat/completions", json=body) as answer:
                async for _ in answer.aiter_raw():
                    break
            await asyncio.sleep(2)

    async def speak_and_transcribe() -> None:
        body = {"model": speech, "input": "A short sentence. And one that is a bit longer.", "response_format": "wav"}
        while time.monotonic() < end:
            spoken = await gateway.http.post("/v1/audio/speech", json=body)
            files, data = {"file": ("a.wav", spoken.content)}, {"model": transcription}
            answer = await gateway.http.post("/v1/audio/transcriptions", files=files, data=data)
            assert answer.status_code == 200
            await asyncio.sleep(0.2)

    async def create_videos() -> None:
        while time.monotonic() < end:
            created = await gateway.http.post("/v1/videos", json={"model": video, "prompt": "a red circle grows"})
            assert created.status_code == 200
            await asyncio.sleep(5)

    question = [{"role": "user", "content": "Tell me about the sea, its waves and its storms. " * 8}]
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(post("/v1/chat/completions", {"model": chat, "messages": question, "max_tokens": 40}))
        texts = ["A short text.", "A text that is quite a bit longer than the other one."]
        group.create_task(post("/v1/embeddings", {"model": embedding, "input": texts}))
        group.create_task(post("/v1/images/generations", {"model": image, "prompt": "a red circle"}))
        group.create_task(post("/v1/chat/completions", {"model": "none", "messages": question}))
        group.create_task(create_videos())
        group.create_task(speak_and_transcribe())
        group.create_task(disconnect())


@pytest.mark.parametrize("panel", PANELS, ids=str)
async def test_each_query_of_a_panel_returns_data(panel: Panel, measured: Measured) -> None:
    for query, legend in panel.targets:
        assert await measured.series(query, legend), query


@pytest.mark.parametrize(
    "metric",
    [
        "tritonic:in_flight",
        "tritonic:event_loop_lag_ratio",
        "tritonic:triton_waiting_requests",
        "tritonic:triton_queue_seconds",
    ],
)
async def test_each_metric_of_the_autoscalers_has_values_of_a_pod(metric: str, measured: Measured) -> None:
    series = await measured.series(metric, "{{namespace}}/{{pod}}")
    pod = "test/triton-0" if "triton_" in metric else "test/gateway-0"
    assert [name for name, _ in series] == [pod]


async def test_each_rule_evaluates_on_real_series(measured: Measured) -> None:
    errors = await measured.prometheus.rules()
    assert len(errors) >= 15 and set(errors.values()) == {""}, errors


async def test_the_list_of_metrics_of_triton_is_what_triton_reports(measured: Measured) -> None:
    reported = {
        line.split("{")[0].split(" ")[0] for line in measured.triton_exposition.splitlines() if not line.startswith("#")
    }
    assert sorted(reported ^ SEEN) == []
    queried = {name for panel in PANELS for query, _ in panel.targets for name in metric_names(query)}
    assert {name for name in queried if not name.startswith("tritonic")} <= reported


async def test_triton_answers_the_probe_of_a_kubelet(triton: EmbeddedTriton) -> None:
    """`grpc` probes call Check of grpc.health.v1 with no service, and expect the status SERVING, 1."""
    async with grpc.aio.insecure_channel(triton.grpc_url) as channel:
        assert await channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=10) == b"\x08\x01"


async def test_the_picture_shows_every_panel(measured: Measured, tmp_path: Path) -> None:
    path = Path(os.environ.get("TRITONIC_DASHBOARD_PICTURE") or tmp_path / "dashboard.png")
    panels = [
        (panel, [series for query, legend in panel.targets for series in await measured.series(query, legend)])
        for panel in PANELS
    ]
    dashboard_picture.draw(panels, path)
    assert path.stat().st_size > 10_000
