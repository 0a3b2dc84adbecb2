"""One trace through both servers: Triton's own spans lie below those of the gateway."""

import asyncio
from pathlib import Path

import pytest

from tests.fakes.otlp_receiver import OTLPReceiver
from tests.triton.model_copies import install_copy
from tests.wire.gateway_server import run_gateway
from tritonic.embedded import EmbeddedTriton

pytestmark = [pytest.mark.triton, pytest.mark.asyncio(loop_scope="session")]


async def test_spans_of_triton_belong_to_the_trace_of_the_request(
    embedding_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    install_copy(embedding_folder, tmp_path, "vectors")
    with OTLPReceiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
        settings = ("mode=opentelemetry", "rate=1", "level=TIMESTAMPS")
        exporter = (f"opentelemetry,url={receiver.url}/v1/traces", "opentelemetry,bsp_schedule_delay=20")
        arguments = [f"--trace-config={setting}" for setting in (*settings, *exporter)]
        with EmbeddedTriton(tmp_path, arguments=arguments) as triton:
            async with run_gateway(triton.grpc_url, triton_secret=triton.secret) as gateway:
                response = await gateway.http.post("/v1/embeddings", json={"model": "vectors", "input": "a"})
                assert response.status_code == 200
                spans = await asyncio.to_thread(receiver.wait_for, 5)
    by_name = {span.name: span for span in spans}
    request, model = by_name["POST /v1/embeddings"], by_name["embeddings vectors"]
    inference, compute = by_name["InferRequest"], by_name["compute"]
    assert {span.trace_id for span in spans} == {request.trace_id}
    assert model.parent_span_id == request.span_id
    assert inference.parent_span_id == model.span_id
    assert by_name["vectors"].parent_span_id == inference.span_id
    assert compute.parent_span_id == by_name["vectors"].span_id
