"""Liveness, readiness and metrics: routes for load balancers, orchestrators and monitoring."""

from typing import Any, Literal

import orjson
from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import PlainTextResponse, Response

from gateway.models.catalog import Catalog
from gateway.observability.telemetry import Metrics

router = APIRouter(tags=["Operations"])


class Live(BaseModel):
    """The process is alive."""

    status: Literal["live"]


class Server(BaseModel):
    """A Triton server of the gateway."""

    url: str
    reachable: bool


class Ready(BaseModel):
    """The Triton servers, the models that answer, and the models that fail."""

    status: Literal["ready", "not ready"]
    triton: list[Server]
    models: list[str]
    failing: list[str]


_LIVE: dict[int | str, dict[str, Any]] = {200: {"model": Live, "description": "The process is alive."}}
_READY: dict[int | str, dict[str, Any]] = {
    200: {"model": Ready, "description": "A server is reachable, and a model is ready and answers."},
    503: {"model": Ready, "description": "No server is reachable, or none has a model that is ready and answers."},
}


@router.get("/health/live", summary="Liveness of the process", responses=_LIVE)
async def live() -> Response:
    """Return 200 as long as the gateway runs."""
    return Response(b'{"status":"live"}', media_type="application/json")


@router.get("/health/ready", summary="Readiness for requests", responses=_READY)
async def ready(request: Request) -> Response:
    """Return 200 if a Triton server and at least one model are ready, or else 503. The body lists what is missing."""
    catalog: Catalog = request.app.state.catalog
    failing = catalog.failing_models()
    models = [model.name for model in catalog.models() if model.name not in failing]
    body = {
        "status": "ready" if models else "not ready",
        "triton": [{"url": server.client.url, "reachable": bool(server.is_reachable)} for server in catalog.servers],
        "models": models,
        "failing": failing,
    }
    return Response(orjson.dumps(body), 200 if models else 503, media_type="application/json")


@router.get("/metrics", summary="Prometheus metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Return the metrics in Prometheus' text format."""
    all_metrics: Metrics = request.app.state.metrics
    return Response(all_metrics.exposition(), media_type="text/plain; version=0.0.4")
