"""The spans of requests, of runs of tasks, and of calls of models.

Names and attributes follow the semantic conventions for HTTP servers
(https://opentelemetry.io/docs/specs/semconv/http/http-spans/) and for generative models
(https://github.com/open-telemetry/semantic-conventions-genai). Prompts and answers are never part of a span. Only
`gateway.observability.tracing` imports this module, and only where tracing is on.
"""

import asyncio
import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from gateway.errors import GatewayError
from gateway.operations.operation import Operation

_PROPAGATOR = TraceContextTextMapPropagator()
"""Reads and writes `traceparent` and `tracestate` (https://www.w3.org/TR/trace-context/)."""
_TRACESTATE = re.compile(r"[\x20-\x7e\t]{0,512}")
"""A `tracestate` that is taken: W3C asks for 512 characters at least."""
_CLOSE_SECONDS = 3.0
"""Seconds that the gateway waits for the export of the last spans as it stops."""

_SAMPLING_ATTRIBUTES = {
    "max_tokens": "gen_ai.request.max_tokens",
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "top_k": "gen_ai.request.top_k",
    "presence_penalty": "gen_ai.request.presence_penalty",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "seed": "gen_ai.request.seed",
}
"""Fields of `gateway.operations.text.Sampling`, and their attributes."""


class FinishedTrace(Protocol):
    """A request at its end, as far as its span describes it (`gateway.observability.telemetry.Trace`)."""

    request_id: str
    route: str
    model: str
    disconnected: bool
    error: GatewayError | None


class Tracing:
    """The spans of one process, and their way to a collector."""

    def __init__(self, tracer: Tracer, shutdown: Callable[[], None] | None = None) -> None:
        """`shutdown` sends the spans that wait, and may block for seconds."""
        self._tracer = tracer
        self._shutdown = shutdown

    def begin_request(self, method: str, path: str, headers: Mapping[str, str]) -> "RequestSpan":
        """Begin the span of an HTTP request. `headers` may hold the caller's `traceparent` and `tracestate`."""
        attributes = {"http.request.method": method, "url.path": path[:500], "url.scheme": "http"}
        carrier = {name: headers[name] for name in ("traceparent", "tracestate") if name in headers}
        if not _TRACESTATE.fullmatch(carrier.get("tracestate", "")):
            del carrier["tracestate"]  # the SDK would log it, and hand thousands of characters on to Triton
        context = _PROPAGATOR.extract(carrier)
        return RequestSpan(
            self._tracer, self._tracer.start_span(method, context, SpanKind.SERVER, attributes=attributes), method
        )

    def begin_task(self, task_id: str) -> "RequestSpan":
        """Begin the span of one run of a durable task."""
        span = self._tracer.start_span(
            "task", Context(), SpanKind.CONSUMER, attributes={"messaging.message.id": task_id}
        )
        return RequestSpan(self._tracer, span, "task")

    async def close(self) -> None:
        """Send the spans that wait, for three seconds at most."""
        if self._shutdown:
            thread = threading.Thread(target=self._shutdown, name="tracing-shutdown", daemon=True)
            thread.start()
            deadline = time.monotonic() + _CLOSE_SECONDS
            while thread.is_alive() and time.monotonic() < deadline:
                await asyncio.sleep(0.05)


class RequestSpan:
    """The span of one request. `trace_id` is its hexadecimal id, which the log line of the request bears, too."""

    __slots__ = ("_name", "_span", "_tracer", "trace_id")

    def __init__(self, tracer: Tracer, span: Span, name: str) -> None:
        self._tracer = tracer
        self._span = span
        self._name = name
        self.trace_id = format(span.get_span_context().trace_id, "032x")

    def begin_model(self, request: Operation, model: str, server: str) -> "ModelSpan":
        """Begin the span of a call of `model` at the Triton `server`, `host:port` or `unix:/path`."""
        kind = request.genai_operation
        host, _, port = server.rpartition(":")
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": kind,
            "gen_ai.provider.name": "triton",
            "gen_ai.request.model": request.model,
            "gen_ai.response.model": model,
            "gen_ai.request.stream": True,
            "server.address": server if server.startswith("unix:") else host,
        }
        if port.isdigit():
            attributes["server.port"] = int(port)
        sampling = getattr(request, "sampling", None)
        for field, name in _SAMPLING_ATTRIBUTES.items():
            if (value := getattr(sampling, field, None)) is not None:
                attributes[name] = value
        if (choices := getattr(sampling, "n", 1)) > 1:
            attributes["gen_ai.request.choice.count"] = choices
        span = self._tracer.start_span(
            f"{kind} {model}", set_span_in_context(self._span), SpanKind.CLIENT, attributes=attributes
        )
        return ModelSpan(span)

    def end(self, trace: FinishedTrace, status: int) -> None:
        """End the span with the HTTP status, and the error that ended the answer if there is one."""
        span = self._span
        span.update_name(f"{self._name} {trace.route}")
        span.set_attribute("http.route", trace.route)
        span.set_attribute("http.response.status_code", status)
        span.set_attribute("tritonic.request_id", trace.request_id)
        if trace.model:
            span.set_attribute("gen_ai.request.model", trace.model)
        if trace.disconnected:
            span.set_attribute("error.type", "client_disconnected")
        elif trace.error:
            span.set_attribute("error.type", trace.error.code)
        if status >= 500 or (trace.error is not None and trace.error.status >= 500):
            span.set_status(StatusCode.ERROR, trace.error.message[:500] if trace.error else None)
        span.end()


class ModelSpan:
    """The span of one call of a model."""

    __slots__ = ("_finish_reasons", "_output_tokens", "_span", "headers")

    def __init__(self, span: Span) -> None:
        self._span = span
        self._finish_reasons: dict[int, str] = {}
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier, set_span_in_context(span))
        self.headers = tuple((name.encode(), value.encode("latin-1", "replace")) for name, value in carrier.items())
        """Headers that carry the trace to Triton: `traceparent`, and `tracestate` if the caller sent one."""

    def record_first_token(self, seconds: float) -> None:
        """Record the time from the request to the first token, in seconds."""
        self._span.set_attribute("gen_ai.response.time_to_first_chunk", seconds)

    def record_event(self, event: object) -> None:
        """Record token counts and finish reasons. Other events mean nothing here."""
        if (prompt_tokens := getattr(event, "prompt_tokens", None)) is not None:
            self._span.set_attribute("gen_ai.usage.input_tokens", prompt_tokens)
        if (completion_tokens := getattr(event, "completion_tokens", None)) is not None:
            self._span.set_attribute("gen_ai.usage.output_tokens", completion_tokens)
        if (reason := getattr(event, "finish_reason", None)) is not None:
            self._finish_reasons[getattr(event, "index", 0)] = reason

    def end(self, error: BaseException | None) -> None:
        """End the span. A closed iterator or a cancelled task is a client that went away, and no error."""
        if self._finish_reasons:
            reasons = [reason for _, reason in sorted(self._finish_reasons.items())]
            self._span.set_attribute("gen_ai.response.finish_reasons", reasons)
        if isinstance(error, GatewayError):
            self._span.set_attribute("error.type", error.code)
            self._span.set_status(StatusCode.ERROR, error.message[:500])
        elif isinstance(error, Exception):
            self._span.set_attribute("error.type", type(error).__qualname__)
            self._span.set_status(StatusCode.ERROR)
        elif error is not None:
            self._span.set_attribute("error.type", "client_disconnected")
        self._span.end()
