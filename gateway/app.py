"""Creates the gateway's ASGI application from its settings, and connects all its parts."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import structlog
from fastapi import FastAPI, Request
from starlette.datastructures import Headers, MutableHeaders, State
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway import health, startup_checks
from gateway.decentralgpt import NodeRegistrar
from gateway.dialects import DIALECTS
from gateway.dialects.dialect import Dialect, DialectTable
from gateway.errors import GatewayError, MethodNotAllowed, NotFound
from gateway.fair_sharing import MemoryPool
from gateway.files import object_stores
from gateway.files.file_store import FileStore
from gateway.http import files_route
from gateway.http.openapi import OpenAPIApplication
from gateway.http.rates import RATE_LIMIT_HEADERS, RateLimits
from gateway.http.trusted_hosts import HostOriginMiddleware, PreflightMiddleware
from gateway.media.loader import MediaLoader
from gateway.models import models_file
from gateway.models.catalog import Catalog
from gateway.observability import tracing
from gateway.observability.event_loop import EventLoopMonitor
from gateway.observability.log_format import configure_logging
from gateway.observability.telemetry import PROBE_ROUTES, Metrics, Trace, valid_request_id
from gateway.settings import Settings
from gateway.tasks import database
from gateway.tasks.task import Task
from gateway.tasks.task_queue import TaskQueue
from gateway.tasks.webhook_sender import RenderTask
from gateway.triton import transport
from gateway.worker_context import WorkerContext

if TYPE_CHECKING:
    from gateway.observability.spans import Tracing

UNMATCHED_ROUTE = "unmatched"
"""Metrics label of requests without a route: a path that callers make up must not become a label."""

_FIRST_DISCOVERY_SECONDS = 2.0
"""Seconds that a worker waits for the discovery of models before it accepts requests."""


def create_app(
    settings: Settings | None = None, worker: WorkerContext | None = None, dialects: Sequence[Dialect] = DIALECTS
) -> FastAPI:
    """Return the application of the gateway, or of the worker process that `worker` describes.

    Its lifespan starts model discovery, the task queue and the sweep of old files. The first of `dialects` owns all
    paths that no dialect claims.

    Raises `ModelsFileError` for an invalid models file, and `StoreError` and `DatabaseError` for settings of a store of
    files or a database of tasks that cannot be used.
    """
    settings = settings or Settings()
    worker = worker or WorkerContext()
    model_descriptions = models_file.read(settings.models_file) if settings.models_file else {}
    object_stores.check_settings(settings)
    database.check_settings(settings)
    configure_logging(settings.log_format, settings.log_level, worker)
    try:
        spans = tracing.from_environment()
    except tracing.TracingError as error:  # the variables are those of a whole cluster, and answers matter more
        structlog.get_logger("gateway").error("tracing is off", reason=str(error))
        spans = None
    for problem in startup_checks.find_problems(settings):
        structlog.get_logger("gateway").error("part of the state folder cannot be used", reason=problem)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        app.state.event_loop.start()
        catalog = Catalog(
            settings.triton_urls,
            interval=settings.discovery_interval,
            timeout=settings.request_timeout,
            secret=settings.triton_secret.get_secret_value() if settings.triton_secret else "",
            connect=transport.connector(settings),
            max_open_requests=max(1, settings.model_requests // worker.num_workers),
            descriptions=model_descriptions,
            aliases=settings.model_aliases,
        )
        app.state.catalog = catalog
        app.state.media = MediaLoader(settings)
        node = NodeRegistrar(settings, catalog, worker) if settings.node_url else None
        files = app.state.files = FileStore(settings)
        recordings = app.state.media.recordings
        renderers = {d.name: _renderer(d.render_task, app.state) for d in dialects if d.render_task}
        task_queue = app.state.tasks = TaskQueue(
            settings, catalog, files, app.state.metrics, spans, recordings, renderers
        )
        task_queue.start()
        tasks = [asyncio.create_task(catalog.watch()), asyncio.create_task(files.sweep_periodically())]
        if node:
            tasks.append(asyncio.create_task(node.run()))
        if worker.folder:
            await _wait_for_models(catalog)
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # Concurrently, so that the gateway stops in bounded time.
        closing = [task_queue.close(), *([node.unregister_all()] if node else [])]
        if spans:
            closing.append(spans.close())
        await asyncio.gather(*closing)
        await app.state.media.close()
        await catalog.close()
        if app.state.rates:
            await app.state.rates.close()
        app.state.event_loop.close()

    table = DialectTable(dialects)
    app = OpenAPIApplication(
        [event for dialect in dialects for event in dialect.stream_events],
        lambda path: table.find(path).requires_key(settings),
        title="Tritonic",
        version="0.1.0",
        lifespan=lifespan,
        docs_url="/docs",
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.settings = settings
    largest_request = settings.max_body_bytes + settings.media_request_max_bytes
    app.state.request_memory = MemoryPool(
        max(settings.requests_held_bytes, 2 * largest_request)
    )  # one request always fits
    metrics = app.state.metrics = Metrics(worker)
    app.state.event_loop = EventLoopMonitor(metrics.event_loop_lag_seconds, metrics.event_loop_held_seconds)
    store = settings.rate_limits_store.get_secret_value() if settings.rate_limits_store else None
    app.state.rates = (
        RateLimits(settings.rate_limits, store, app.state.metrics.rates_unshared) if settings.rate_limits else None
    )
    for dialect in table.in_order():
        for router in dialect.routers:
            app.include_router(router)
    app.include_router(health.router)
    app.include_router(files_route.router)
    _add_exception_handlers(app, table.render_error)
    if settings.cors_origins:
        exposed = ["x-request-id", "retry-after", *RATE_LIMIT_HEADERS]
        app.add_middleware(PreflightMiddleware, settings=settings, expose_headers=exposed)
    app.add_middleware(HostOriginMiddleware, settings=settings, render=table.render_error)
    # Outermost, so that it also traces preflights and unknown paths.
    app.add_middleware(_TraceMiddleware, metrics=app.state.metrics, event_loop=app.state.event_loop, tracing=spans)
    return app


def _renderer(render: Callable[[Task, State], Mapping[str, Any]], state: State) -> RenderTask:
    return lambda task: render(task, state)


async def _wait_for_models(catalog: Catalog) -> None:
    """Wait until models are known: connections already wait for a worker that replaces another one."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_FIRST_DISCOVERY_SECONDS):
            while not catalog.models():
                await asyncio.sleep(0.01)


def _add_exception_handlers(app: OpenAPIApplication, render: Callable[[str, GatewayError], Response]) -> None:
    """Add handlers for errors outside the routes of dialects. The dialect that owns the path renders the error."""

    async def render_routing_error(request: Request, exception: Exception) -> Response:
        """Respond to a path without a route, or to a method that the routes of the path do not support."""
        error: GatewayError
        headers: dict[str, str] = {}
        path = request.scope["path"]  # `request.url` fails where the header `Host` is malformed
        if isinstance(exception, HTTPException) and exception.status_code == 405:
            allowed = ", ".join(sorted(app.allowed_methods(request.scope)))
            headers["Allow"] = allowed
            error = MethodNotAllowed(f"{path[:200]} does not support {request.method}. Supported methods: {allowed}.")
        else:
            error = NotFound(f"No route matches {request.method} {path[:200]}. /docs lists all routes.")
        response = render(path, error)
        response.headers.update(headers)
        return response

    async def render_gateway_error(request: Request, exception: Exception) -> Response:
        """Respond to a failure of a route that belongs to no dialect."""
        assert isinstance(exception, GatewayError)
        request.state.trace.record_failure(exception)
        return render(request.scope["path"], exception)

    async def render_unexpected_error(request: Request, exception: Exception) -> Response:
        """Respond to an exception that no route has caught; the server logs it."""
        response = render(request.scope["path"], GatewayError("The gateway failed because of an internal error."))
        response.headers.update(request.state.trace.headers)
        return response

    app.add_exception_handler(HTTPException, render_routing_error)
    app.add_exception_handler(GatewayError, render_gateway_error)
    app.add_exception_handler(Exception, render_unexpected_error)


class _TraceMiddleware:
    """Gives every request an id and a trace. Plain ASGI: Starlette's `BaseHTTPMiddleware` hides disconnects."""

    def __init__(self, app: ASGIApp, metrics: Metrics, event_loop: EventLoopMonitor, tracing: "Tracing | None") -> None:
        self._app = app
        self._tracing = tracing
        self._metrics = metrics
        self._event_loop = event_loop

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"]
        if path.endswith("/") and not path.endswith("//") and len(path) > 1:
            # Serve the path without its slash: after a redirect, many clients send no body.
            scope["path"] = path[:-1]
        headers = Headers(scope=scope)
        request_id = valid_request_id(headers.get("x-request-id", ""))
        trace = Trace(self._metrics, request_id, headers={"x-request-id": request_id})
        if self._tracing and path not in PROBE_ROUTES:
            trace.span = self._tracing.begin_request(scope["method"], path, headers)
        scope.setdefault("state", {})["trace"] = trace
        self._event_loop.begin_request(trace)
        status = 500

        async def receive_counted() -> Message:
            message = await receive()
            if message["type"] == "http.request":
                trace.body_bytes += len(message.get("body", b""))
            return message

        async def send_tagged(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).update(trace.headers)
            await send(message)

        try:
            await self._app(scope, receive_counted, send_tagged)
        finally:
            self._event_loop.end_request()
            trace.cleanup.close()
            if trace.reservation:
                trace.reservation.release()
            trace.route = trace.route or getattr(scope.get("route"), "path", UNMATCHED_ROUTE)
            trace.finish(499 if trace.disconnected else status)
