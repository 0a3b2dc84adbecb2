"""Traces: the spans that a real OTLP receiver gets of requests, and the context that callers and Triton share."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from gateway.observability import tracing
from tests.fakes.otlp_receiver import OTLPReceiver, attributes
from tests.fakes.triton import FakeTriton
from tests.wire.gateway_server import RunningGateway, run_gateway

pytestmark = pytest.mark.asyncio(loop_scope="session")

TRACE_ID, PARENT_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE_ID}-{PARENT_ID}-01"
CHAT = {"messages": [{"role": "user", "content": "A secret of mine."}]}


@dataclass
class Traced:
    """A gateway with tracing, and the receiver of its spans."""

    gateway: RunningGateway
    receiver: OTLPReceiver
    triton: FakeTriton

    async def spans(self, count: int) -> list[Span]:
        """Return the next `count` spans in the order of their start, and forget them."""
        spans = await asyncio.to_thread(self.receiver.wait_for, count)
        self.receiver.spans.clear()
        return spans


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def traced(triton: FakeTriton) -> AsyncIterator[Traced]:
    with OTLPReceiver() as receiver, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
        patch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=tests")
        async with run_gateway(triton.url, platforms={"one": {"keys": None}}) as gateway:
            yield Traced(gateway, receiver, triton)


async def test_a_chat_has_a_span_of_the_request_and_one_of_the_model_below_it(traced: Traced):
    body = {"model": "hello", **CHAT, "max_tokens": 9, "temperature": 0.5, "seed": 3}
    response = await traced.gateway.http.post("/v1/chat/completions", json=body, headers={"x-request-id": "r-1"})
    assert response.status_code == 200
    request, model = await traced.spans(2)
    assert (request.name, request.kind) == ("POST /v1/chat/completions", Span.SPAN_KIND_SERVER)
    assert not request.parent_span_id
    assert attributes(request) == {
        "http.request.method": "POST",
        "url.path": "/v1/chat/completions",
        "url.scheme": "http",
        "http.route": "/v1/chat/completions",
        "http.response.status_code": 200,
        "tritonic.request_id": "r-1",
        "gen_ai.request.model": "hello",
    }
    assert (model.name, model.kind) == ("chat hello", Span.SPAN_KIND_CLIENT)
    assert (model.trace_id, model.parent_span_id) == (request.trace_id, request.span_id)
    found = attributes(model)
    assert 0 < found.pop("gen_ai.response.time_to_first_chunk") < 30
    usage = response.json()["usage"]
    assert found == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "triton",
        "gen_ai.request.model": "hello",
        "gen_ai.response.model": "hello",
        "gen_ai.request.stream": True,
        "gen_ai.request.max_tokens": 9,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.seed": 3,
        "gen_ai.usage.input_tokens": usage["prompt_tokens"],
        "gen_ai.usage.output_tokens": usage["completion_tokens"],
        "gen_ai.response.finish_reasons": ["stop"],
        "server.address": "127.0.0.1",
        "server.port": traced.triton.port,
    }
    assert b"secret" not in request.SerializeToString() + model.SerializeToString()
    assert traced.receiver.resource["service.name"] == "tritonic"
    assert traced.receiver.resource["deployment.environment.name"] == "tests"


async def test_the_callers_trace_goes_on_to_triton(traced: Traced):
    before = len(traced.triton.calls)
    headers = {"traceparent": PARENT, "tracestate": "vendor=1"}
    body = {"model": "hello", **CHAT, "stream": True}
    assert (await traced.gateway.http.post("/v1/chat/completions", json=body, headers=headers)).status_code == 200
    request, model = await traced.spans(2)
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE_ID, PARENT_ID)
    sent = (await traced.triton.call("hello", before)).metadata
    assert sent["traceparent"] == f"00-{TRACE_ID}-{model.span_id.hex()}-01"
    assert sent["tracestate"] == "vendor=1"


async def test_a_caller_that_is_not_sampled_leaves_no_spans(traced: Traced):
    headers = {"traceparent": PARENT[:-1] + "0"}
    await traced.gateway.http.post("/v1/chat/completions", json={"model": "hello", **CHAT}, headers=headers)
    await traced.gateway.http.get("/v1/models")
    (only,) = await traced.spans(1)
    assert only.name == "GET /v1/models"


@pytest.mark.parametrize(
    "value", ["nonsense", "00-0-0-01", "ff" * 2000, f"00-{'0' * 32}-{PARENT_ID}-01", "\u00e9" * 99]
)
async def test_a_malformed_traceparent_begins_a_new_trace(traced: Traced, value: str):
    response = await traced.gateway.http.get("/v1/models", headers=[(b"traceparent", value.encode("latin-1"))])
    assert response.status_code == 200
    (span,) = await traced.spans(1)
    assert not span.parent_span_id


@pytest.mark.parametrize("value", ["a=" + "b" * 511, ",".join(f"k{i}=v" for i in range(200)), "a=\u00e9", "=,=;" * 9])
async def test_a_hostile_tracestate_reaches_neither_the_log_nor_triton(
    traced: Traced, value: str, caplog: pytest.LogCaptureFixture
):
    before = len(traced.triton.calls)
    headers = [(b"traceparent", PARENT.encode()), (b"tracestate", value.encode("latin-1"))]
    response = await traced.gateway.http.post("/v1/chat/completions", json={"model": "hello", **CHAT}, headers=headers)
    assert response.status_code == 200
    request, _ = await traced.spans(2)
    assert request.trace_id.hex() == TRACE_ID
    assert "tracestate" not in (await traced.triton.call("hello", before)).metadata
    assert not [record for record in caplog.records if record.name.startswith("opentelemetry")]


async def test_embeddings_and_images_have_their_operations(traced: Traced):
    await traced.gateway.http.post("/v1/embeddings", json={"model": "vectors", "input": "a"})
    await traced.gateway.http.post("/v1/images/generations", json={"model": "shapes", "prompt": "a"})
    spans = await traced.spans(4)
    names = {span.name for span in spans if span.kind == Span.SPAN_KIND_CLIENT}
    assert names == {"embeddings vectors", "generate_content shapes"}


@pytest.mark.parametrize(
    ("path", "body", "status", "expected"),
    [
        ("/v1/chat/completions", {"model": "none", **CHAT}, 404, [("model_not_found", Status.STATUS_CODE_UNSET)]),
        (
            "/v1/chat/completions",
            {"model": "hasty-then-broken", **CHAT, "stream": True},
            200,
            [("model_failed", Status.STATUS_CODE_ERROR)] * 2,
        ),
    ],
)
async def test_failures_are_recorded(
    traced: Traced, path: str, body: dict[str, Any], status: int, expected: list[tuple[str, int]]
):
    assert (await traced.gateway.http.post(path, json=body)).status_code == status
    spans = await traced.spans(len(expected))
    assert [(attributes(span)["error.type"], span.status.code) for span in spans] == expected


async def test_a_disconnect_is_no_error(traced: Traced):
    body = {"model": "echo", "messages": [{"role": "user", "content": "word " * 2000}], "stream": True}
    async with traced.gateway.http.stream("POST", "/v1/chat/completions", json=body) as response:
        await anext(response.aiter_bytes())
    spans = await traced.spans(2)
    assert [attributes(span)["error.type"] for span in spans] == ["client_disconnected"] * 2
    assert {span.status.code for span in spans} == {Status.STATUS_CODE_UNSET}


async def test_a_task_has_a_trace_of_its_own(traced: Traced):
    body = {"model": "shapes", "prompt": "a red circle", "async": True}
    async with asyncio.timeout(90):
        # The first task creates the database.
        while (made := await traced.gateway.http.post("/one/v1/images/generations", json=body)).status_code == 503:
            await asyncio.sleep(0.1)
    task_id = made.json()["id"]
    async with asyncio.timeout(60):
        while not any(span.name.startswith("task") for span in traced.receiver.spans):
            await asyncio.sleep(0.02)
    spans = list(traced.receiver.spans)
    traced.receiver.spans.clear()
    run = next(span for span in spans if span.name.startswith("task"))
    below = [span for span in spans if span.parent_span_id == run.span_id]
    assert attributes(run)["messaging.message.id"] == task_id
    assert [span.name for span in below] == ["generate_content shapes"]


async def test_probes_have_no_spans(traced: Traced):
    for path in ("/health/live", "/health/ready", "/metrics", "/v1/models"):
        await traced.gateway.http.get(path)
    (span,) = await traced.spans(1)
    assert span.name == "GET /v1/models"


async def test_a_collector_that_is_away_delays_nobody(triton: FakeTriton, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    async with run_gateway(triton.url) as gateway:
        for _ in range(3):
            response = await gateway.http.post("/v1/chat/completions", json={"model": "hello", **CHAT})
            assert response.status_code == 200


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL is 'grpc'"),
        ({"OTEL_TRACES_EXPORTER": "console"}, "OTEL_TRACES_EXPORTER is 'console'"),
        ({}, "pip install 'tritonic\\[tracing\\]'"),
    ],
)
async def test_tracing_that_is_not_possible_is_explained(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], message: str
):
    for name, value in {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", **environment}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace.export", None)
    with pytest.raises(tracing.TracingError, match=message):
        tracing.check_environment()


async def test_the_gateway_runs_where_tracing_is_not_possible(triton: FakeTriton, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    async with run_gateway(triton.url) as gateway:
        response = await gateway.http.post("/v1/chat/completions", json={"model": "hello", **CHAT})
        assert response.status_code == 200


@pytest.mark.parametrize(
    "environment", [{}, {"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}], ids=["unset", "off", "none"]
)
async def test_nothing_of_it_is_loaded_where_tracing_is_off(environment: dict[str, str], tmp_path: Path):
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"} if environment else {}
    code = (
        "import sys, gateway.app as a; app = a.create_app(); "
        "print([m for m in sys.modules if m.startswith(('opentelemetry.sdk', 'gateway.observability.spans'))])"
    )
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", code],
        env={"PATH": "", "TRITONIC_STATE": str(tmp_path), "PYTHONPATH": str(Path.cwd()), **endpoint, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
