"""Metrics, and the log line of each request.

docs/operations.md lists the names and labels of the metrics. The label `model` is always the name of an existing model,
and `route` the pattern of a known route, so that callers cannot create new time series.
"""

import os
import re
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Self

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector

from gateway.errors import GatewayError
from gateway.fair_sharing import MemoryReservation
from gateway.operations.operation import Operation
from gateway.operations.registry import OPERATIONS
from gateway.worker_context import WorkerContext

if TYPE_CHECKING:
    from gateway.observability.spans import RequestSpan

_REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
"""Upper bounds in seconds, like the other buckets."""
_EVENT_LOOP_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_INTER_TOKEN_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2, 5)

PROBE_ROUTES = frozenset({"/health/live", "/health/ready", "/metrics"})
"""Routes that monitoring calls every few seconds: they are logged at level debug and have no spans."""

WEBHOOK_OUTCOMES = ("delivered", "failed", "abandoned")
"""Outcomes of an attempt to send a webhook: confirmed; not confirmed, with another attempt to come, or without."""

_DELTA_EVENTS = tuple({event for operation in OPERATIONS.values() for event in operation.delta_events})
_AUDIO_EVENTS = tuple({event for operation in OPERATIONS.values() for event in operation.audio_events})
_USAGE_EVENTS = tuple({event for operation in OPERATIONS.values() for event in operation.usage_events})

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")


def valid_request_id(given: str) -> str:
    """Return the request id that the caller sent, if it is valid, or else a new one."""
    return given if _REQUEST_ID.fullmatch(given) else f"req_{uuid.uuid4().hex}"


class Metrics:
    """The Prometheus metrics of one gateway, all workers together."""

    def __init__(self, worker_context: WorkerContext | None = None) -> None:
        """Several workers store their values in files of their common folder, and each worker exposes the sums of all.

        This affects every metric that the process creates from then on: prometheus_client has one kind of value for a
        process.
        """
        self.registry = CollectorRegistry()
        self._exposed = self.registry
        if worker_context is not None and worker_context.folder is not None:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(worker_context.folder)
            # Files are named after the index of the worker, not its process id: a replacement continues its counts.
            values.ValueClass = values.MultiProcessValue(lambda: worker_context.worker_index)  # type: ignore[no-untyped-call]
            self._exposed = CollectorRegistry()
            MultiProcessCollector(self._exposed, str(worker_context.folder))  # type: ignore[no-untyped-call]
        labels = ("route", "model")

        def counter(name: str, text: str, labels: tuple[str, ...] = labels) -> Counter:
            return Counter(f"tritonic_{name}", text, labels, registry=self.registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"tritonic_{name}", text, labels, buckets=buckets, registry=self.registry)

        self.requests = counter("requests", "HTTP requests with a response.", (*labels, "status"))
        self.request_seconds = histogram(
            "request_seconds", "Seconds from the request to the end of the response.", _REQUEST_BUCKETS
        )
        self.first_token_seconds = histogram(
            "time_to_first_token_seconds", "Seconds from the request to the first token.", _REQUEST_BUCKETS
        )
        self.inter_token_seconds = histogram(
            "inter_token_seconds", "Seconds between two tokens of a stream.", _INTER_TOKEN_BUCKETS
        )
        self.tokens_in = counter("tokens_in", "Tokens of prompts, as counted by the engine.")
        self.tokens_out = counter("tokens_out", "Tokens generated, as counted by the engine.")
        self.audio_seconds_in = counter("audio_seconds_in", "Seconds of sound that models have read.")
        self.cancellations = counter("cancellations", "Requests whose client disconnected before the end.")
        self.failures = counter("failures", "Responses that ended with an error, including streams.", (*labels, "code"))
        self.rates_unshared = Counter(
            "tritonic_rates_unshared",
            "Requests whose rate limits this gateway counted alone because Redis did not respond.",
            registry=self.registry,
        )
        self.webhooks = Counter(
            "tritonic_webhooks",
            "Attempts to send webhooks of tasks, by outcome.",
            ("outcome",),
            registry=self.registry,
        )
        for outcome in WEBHOOK_OUTCOMES:
            self.webhooks.labels(outcome)  # so that rates begin with the first event
        self.event_loop_lag_seconds = Histogram(
            "tritonic_event_loop_lag_seconds",
            "Lag of the event loop in seconds, if it exceeds 5 ms.",
            buckets=_EVENT_LOOP_BUCKETS,
            registry=self.registry,
        )
        self.event_loop_held_seconds = Histogram(
            "tritonic_event_loop_held_seconds",
            "Part of the lag in seconds during which this process itself blocked the event loop.",
            buckets=_EVENT_LOOP_BUCKETS,
            registry=self.registry,
        )
        self.model_failing = Gauge(
            "tritonic_model_failing",
            "1 while a model does not respond on a server that reports it as ready.",
            ("model", "server"),
            registry=self.registry,
            multiprocess_mode="livemax",
        )
        self.in_flight = Gauge(
            "tritonic_in_flight",
            "Requests that a model is processing.",
            labels,
            registry=self.registry,
            multiprocess_mode="livesum",
        )

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._exposed)


@dataclass(slots=True)
class Trace:
    """One HTTP request, or one run of a task, on its way through the gateway."""

    metrics: Metrics
    request_id: str
    route: str = ""
    caller: str = ""
    """Id of the caller (`gateway.http.rates`); empty for tasks, which no caller waits for."""
    model: str = ""
    body_bytes: int = 0
    """Bytes of the body received so far; once it is complete, its size after decompression."""
    tokens: int = 0
    """Tokens that models have read and generated for the request so far."""
    is_large: bool = False
    """True: work on the request or its media runs in a thread, not on the event loop (`gateway.http.offload`)."""
    reservation: MemoryReservation | None = None
    """Memory of the body and of fetched media. The request holds it until it is answered, also while it is queued."""
    disconnected: bool = False
    error: GatewayError | None = None
    """The error that ended the answer. A stream that fails has sent its status long before."""
    started: float = field(default_factory=time.perf_counter)
    headers: dict[str, str] = field(default_factory=dict)
    """Headers that every response to the request gets, whether it succeeds or fails."""
    charge_tokens: Callable[[str, int], None] | None = None
    """Called with the caller and the number of tokens at the end."""
    cleanup: ExitStack = field(default_factory=ExitStack)
    """Closed when the request has been answered: it holds files that are open for the request."""
    span: "RequestSpan | None" = None
    """Its span where tracing is on (`gateway.observability.tracing`)."""

    def measure(self, model: str, request: Operation, server: str) -> "AnswerMetrics":
        """Return a context manager that measures the answer to `request` of `model` at the Triton `server`."""
        self.model = model
        return AnswerMetrics(self, request, server)

    def record_failure(self, error: GatewayError) -> None:
        """Record the error that ended the answer.

        The traceback is dropped: its frames refer to the body, to data derived from it and to this object, and the
        reference cycle would keep all of them in memory until the garbage collector runs.
        """
        error.__traceback__ = error.__context__ = error.__cause__ = None
        self.error = error

    def finish(self, status: int) -> None:
        """Count the request and log a line about it."""
        seconds = time.perf_counter() - self.started
        if self.charge_tokens:
            self.charge_tokens(self.caller, self.tokens)
        self.metrics.requests.labels(self.route, self.model, str(status)).inc()
        self.metrics.request_seconds.labels(self.route, self.model).observe(seconds)
        if self.disconnected and self.model:
            self.metrics.cancellations.labels(self.route, self.model).inc()
        if self.error:
            self.metrics.failures.labels(self.route, self.model, self.error.code).inc()
        log = structlog.get_logger("gateway")
        # Probes of monitoring, every few seconds, would drown the other lines.
        write = log.debug if self.route in PROBE_ROUTES else log.info
        write(
            "request",
            request_id=self.request_id,
            route=self.route,
            caller=self.caller or None,
            model=self.model or None,
            status=status,
            milliseconds=round(seconds * 1000, 1),
            hung_up=self.disconnected,
            **({"trace_id": self.span.trace_id} if self.span else {}),
            **({"error": self.error.code, "reason": self.error.message[:500]} if self.error else {}),
        )
        if self.span:
            self.span.end(self, status)


class AnswerMetrics:
    """Counts the events of one answer while a model generates it. A context manager."""

    __slots__ = (
        "_audio_seconds",
        "_first_token",
        "_in_flight",
        "_inter_token",
        "_last",
        "_span",
        "_started",
        "_tokens_in",
        "_tokens_out",
        "_trace",
        "headers",
    )

    def __init__(self, trace: Trace, request: Operation, server: str) -> None:
        metrics, labels = trace.metrics, (trace.route, trace.model)
        self._trace = trace
        self._in_flight = metrics.in_flight.labels(*labels)
        self._first_token = metrics.first_token_seconds.labels(*labels)
        self._inter_token = metrics.inter_token_seconds.labels(*labels) if request.paces_tokens else None
        self._tokens_in = metrics.tokens_in.labels(*labels)
        self._tokens_out = metrics.tokens_out.labels(*labels)
        self._audio_seconds = metrics.audio_seconds_in.labels(*labels)
        self._started = trace.started
        self._last = 0.0
        self._span = trace.span.begin_model(request, trace.model, server) if trace.span else None
        self.headers: tuple[tuple[bytes, bytes], ...] = self._span.headers if self._span else ()
        """Headers that carry the trace to Triton."""

    def __enter__(self) -> Self:
        self._in_flight.inc()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._in_flight.dec()
        if self._span:
            self._span.end(error)

    def observe(self, event: object) -> None:
        """Count one event of the answer."""
        if isinstance(event, _DELTA_EVENTS):
            self._tokens_out.inc(event.tokens)
            self._trace.tokens += event.tokens
            now = time.perf_counter()
            if self._last:
                if self._inter_token is not None:
                    # Tokens of one response were generated one after another since the previous response.
                    seconds = (now - self._last) / max(event.tokens, 1)
                    for _ in range(event.tokens):
                        self._inter_token.observe(seconds)
            else:
                self._first_token.observe(now - self._started)
                if self._span:
                    self._span.record_first_token(now - self._started)
            self._last = now
            return
        if isinstance(event, _AUDIO_EVENTS):
            self._audio_seconds.inc(event.audio_seconds)
            self._tokens_in.inc(event.prompt_tokens)
            self._tokens_out.inc(event.tokens)
            self._trace.tokens += event.prompt_tokens + event.tokens
        elif isinstance(event, _USAGE_EVENTS):
            self._tokens_in.inc(event.prompt_tokens)
            self._trace.tokens += event.prompt_tokens
        if self._span:
            self._span.record_event(event)
