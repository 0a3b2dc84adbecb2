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
    """The process answers."""

    status: Literal["live"]


class Server(BaseModel):
    """A Triton server of the gateway."""

    url: str
    reachable: bool


class Ready(BaseModel):
    """What is there, and what is missing."""

    status: Literal["ready", "not ready"]
    triton: list[Server]
    models: list[str]
    failing: list[str]


_LIVE: dict[int | str, dict[str, Any]] = {200: {"model": Live, "description": "It does."}}
_READY: dict[int | str, dict[str, Any]] = {
    200: {"model": Ready, "description": "They can."},
    503: {"model": Ready, "description": "No server is reachable, or none holds a model that is ready and answers."},
}


@router.get("/health/live", summary="Whether the process answers", responses=_LIVE)
async def live() -> Response:
    """Answer 200 as long as the gateway runs."""
    return Response(b'{"status":"live"}', media_type="application/json")


@router.get("/health/ready", summary="Whether requests can be served", responses=_READY)
async def ready(request: Request) -> Response:
    """Answer 200 when a Triton server and at least one model are ready, and 503 with what is missing otherwise."""
    catalog: Catalog = request.app.state.catalog
    failing = catalog.failing_models()
    models = [model.name for model in catalog.models() if model.name not in failing]
    body = {
        "status": "ready" if models else "not ready",
        "triton": [{"url": e.client.url, "reachable": bool(e.is_reachable)} for e in catalog.servers],
        "models": models,
        "failing": failing,
    }
    return Response(orjson.dumps(body), 200 if models else 503, media_type="application/json")


@router.get("/metrics", summary="Prometheus metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Return the metrics in Prometheus' text format."""
    measured: Metrics = request.app.state.metrics
    return Response(measured.exposition(), media_type="text/plain; version=0.0.4")
