"""The gateway: settings in, an ASGI application out. All wiring is here."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

import structlog
from fastapi import FastAPI, Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway import health, models_file, state
from gateway.catalog import Catalog
from gateway.crew import Crew
from gateway.dialects import DIALECTS
from gateway.dialects.openai import answers as openai_answers
from gateway.dialects.openai import images_answers as openai_images
from gateway.dialects.openapi import DocumentedAPI
from gateway.dialects.platform import answers as platform_answers
from gateway.dialects.vocabulary import errors as openai_errors
from gateway.errors import GatewayError, MethodNotAllowed, NotFound
from gateway.files import route as files_route
from gateway.files import stores
from gateway.files.files import Files
from gateway.http.hosts import HostsAndOrigins, Preflights
from gateway.media.media import Media
from gateway.node import Node
from gateway.observability.event_loop import EventLoopWatch
from gateway.places import Room
from gateway.rates import HEADERS, RateLimits
from gateway.settings import Settings
from gateway.tasks import database
from gateway.tasks.tasks import Tasks
from gateway.telemetry import Metrics, Trace, configure_logging, request_id

UNMATCHED = "unmatched"
"""The route of requests for which there is none: their paths are the callers' invention and no label."""

_FIRST_LOOK = 2.0
"""Seconds that a worker waits for models to be found before it takes requests."""


def create_app(settings: Settings | None = None, crew: Crew | None = None) -> FastAPI:
    """Return the gateway, or the worker of one that `crew` describes. It looks for models as its lifespan begins.

    Raises `ModelsFileError` where the models file cannot be used, and `StoreError` and `DatabaseError` where files or
    tasks cannot be kept where the settings say.
    """
    settings = settings or Settings()
    crew = crew or Crew()
    described = models_file.read(settings.models_file) if settings.models_file else {}
    stores.check(settings)
    database.check(settings)
    configure_logging(settings.log_format, settings.log_level, crew)
    for wrong in state.faults(settings):
        structlog.get_logger("gateway").error("a part of the state cannot be used", reason=wrong)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        app.state.event_loop.start()
        catalog = Catalog(
            settings.triton_urls,
            interval=settings.discovery_interval,
            timeout=settings.request_timeout,
            secret=settings.triton_secret.get_secret_value() if settings.triton_secret else "",
            bound=max(1, settings.model_requests // crew.size),
            described=described,
            aliases=settings.model_aliases,
        )
        app.state.catalog = catalog
        app.state.media = Media(settings)
        node = Node(settings, catalog, crew) if settings.node_url else None
        files = app.state.files = Files(settings)
        durable = app.state.tasks = Tasks(settings, catalog, files, app.state.metrics)
        durable.start()
        tasks = [asyncio.create_task(catalog.watch()), asyncio.create_task(files.keep())]
        if node:
            tasks.append(asyncio.create_task(node.keep()))
        if crew.folder:
            await _first_look(catalog)
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # Side by side: whoever stops the gateway does not wait for ever.
        await asyncio.gather(durable.close(), *([node.leave()] if node else []))
        await app.state.media.close()
        await catalog.close()
        if app.state.rates:
            await app.state.rates.close()
        app.state.event_loop.close()

    app = DocumentedAPI(
        settings,
        (*openai_answers.EVENTS, *openai_images.EVENTS, *platform_answers.EVENTS),
        title="Tritonic",
        version="0.1.0",
        lifespan=lifespan,
        docs_url="/docs",
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.settings = settings
    largest = settings.max_body_bytes + settings.media_request_max_bytes
    app.state.held = Room(max(settings.requests_held_bytes, 2 * largest))  # one request always fits
    metrics = app.state.metrics = Metrics(crew)
    app.state.event_loop = EventLoopWatch(metrics.event_loop_lag_seconds, metrics.event_loop_held_seconds)
    store = settings.rate_limits_store.get_secret_value() if settings.rate_limits_store else None
    app.state.rates = (
        RateLimits(settings.rate_limits, store, app.state.metrics.rates_unshared) if settings.rate_limits else None
    )
    # Each request is compared with one after the other: what is asked most comes first.
    for routers in DIALECTS.values():
        for router in routers:
            app.include_router(router)
    app.include_router(health.router)
    app.include_router(files_route.router)
    app.add_exception_handler(HTTPException, _no_route)
    app.add_exception_handler(GatewayError, _refused)
    app.add_exception_handler(Exception, _failed)
    if settings.cors_origins:
        exposed = ["x-request-id", "retry-after", *HEADERS]
        app.add_middleware(Preflights, settings=settings, expose_headers=exposed)
    app.add_middleware(HostsAndOrigins, settings=settings, render=openai_errors.render)
    # Outermost, so that preflights and unknown paths are seen too.
    app.add_middleware(_Tracing, metrics=app.state.metrics, event_loop=app.state.event_loop)
    return app


async def _first_look(catalog: Catalog) -> None:
    """Wait until models are known: a worker that takes another's place has connections that wait for it already."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_FIRST_LOOK):
            while not catalog.models():
                await asyncio.sleep(0.01)


async def _no_route(request: Request, exception: Exception) -> Response:
    """Render what the router itself refuses; until a dialect claims a path, OpenAI's shape."""
    error: GatewayError
    path = request.scope["path"][:200]  # its URL cannot be had where the header `Host` is garbage
    if isinstance(exception, HTTPException) and exception.status_code == 405:
        allowed = (exception.headers or {}).get("Allow", "")
        if allowed == "GET":  # another route takes HEAD for it
            allowed = "GET, HEAD"
            exception.headers = {"Allow": allowed}
        error = MethodNotAllowed(f"{path} does not take {request.method}; it takes: {allowed}.")
    else:
        error = NotFound(f"There is nothing at {request.method} {path}; /docs lists what there is.")
    response = openai_errors.render(error)
    if isinstance(exception, HTTPException):
        response.headers.update(exception.headers or {})
    return response


async def _refused(request: Request, exception: Exception) -> Response:
    """Render the failures of routes that belong to no dialect, in OpenAI's shape."""
    assert isinstance(exception, GatewayError)
    request.state.trace.failed(exception)
    return openai_errors.render(exception)


async def _failed(request: Request, exception: Exception) -> Response:
    """Render what no route has caught; the server writes it into the log."""
    response = openai_errors.render(GatewayError("The gateway failed on this request."))
    response.headers.update(request.state.trace.headers)
    return response


class _Tracing:
    """Gives every request an id and a trace. Plain ASGI: Starlette's own middleware base hides hang-ups."""

    def __init__(self, app: ASGIApp, metrics: Metrics, event_loop: EventLoopWatch) -> None:
        self._app = app
        self._metrics = metrics
        self._event_loop = event_loop

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"]
        if path.endswith("/") and not path.endswith("//") and len(path) > 1:
            # Served as without it: a redirect would lose the body of a POST with many clients.
            scope["path"] = path[:-1]
        its = request_id(Headers(scope=scope).get("x-request-id", ""))
        trace = Trace(self._metrics, its, headers={"x-request-id": its})
        scope.setdefault("state", {})["trace"] = trace
        self._event_loop.begin(trace)
        status = 500

        async def counted() -> Message:
            message = await receive()
            if message["type"] == "http.request":
                trace.body_bytes += len(message.get("body", b""))
            return message

        async def tagged(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).update(trace.headers)
            await send(message)

        try:
            await self._app(scope, counted, tagged)
        finally:
            self._event_loop.finish()
            if trace.holding:
                trace.holding.release()
            trace.route = trace.route or getattr(scope.get("route"), "path", UNMATCHED)
            trace.finished(499 if trace.hung_up else status)
