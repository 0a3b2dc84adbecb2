"""What can be seen from outside: metrics, request ids and structured logs.

Metric names and labels are listed in docs/operations.md. `model` is only ever the name of a model that was found, and
`route` the pattern of a known route, so that callers cannot make up new series.
"""

import logging
import os
import re
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector

from gateway.errors import GatewayError
from gateway.fair_sharing import MemoryReservation
from gateway.operations.registry import OPERATIONS
from gateway.worker_context import WorkerContext

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_LOOP_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_SHORT_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2, 5)


_PROBE_ROUTES = frozenset({"/health/live", "/health/ready", "/metrics"})


_DELTA_EVENTS = tuple({event for operation in OPERATIONS.values() for event in operation.delta_events})
_USAGE_EVENTS = tuple({event for operation in OPERATIONS.values() for event in operation.usage_events})

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")


def valid_request_id(given: str) -> str:
    """Return the id of a request: the one that its caller has given, where it can be one, or a new one."""
    return given if _REQUEST_ID.fullmatch(given) else f"req_{uuid.uuid4().hex}"


class Metrics:
    """The Prometheus metrics of one gateway, of all its workers together."""

    def __init__(self, crew: WorkerContext | None = None) -> None:
        """Workers keep what they measure in files of their folder, and each shows the sums of all.

        This holds for whatever the process measures from then on: prometheus_client knows one kind of value.
        """
        self.registry = CollectorRegistry()
        self._exposed = self.registry
        if crew is not None and crew.folder is not None:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(crew.folder)
            # Files bear the worker's number, not that of its process: whoever comes after it counts on where it was.
            values.ValueClass = values.MultiProcessValue(lambda: crew.worker_index)  # type: ignore[no-untyped-call]
            self._exposed = CollectorRegistry()
            MultiProcessCollector(self._exposed, str(crew.folder))  # type: ignore[no-untyped-call]
        by = ("route", "model")

        def counter(name: str, text: str, labels: tuple[str, ...] = by) -> Counter:
            return Counter(f"tritonic_{name}", text, labels, registry=self.registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"tritonic_{name}", text, by, buckets=buckets, registry=self.registry)

        self.requests = counter("requests", "HTTP requests answered.", (*by, "status"))
        self.request_seconds = histogram("request_seconds", "From request to the end of the answer.", _SECONDS)
        self.first_token_seconds = histogram("time_to_first_token_seconds", "From request to first token.", _SECONDS)
        self.inter_token_seconds = histogram("inter_token_seconds", "Between two tokens of a stream.", _SHORT_SECONDS)
        self.tokens_in = counter("tokens_in", "Tokens of prompts, as counted by the engine.")
        self.tokens_out = counter("tokens_out", "Tokens generated, as counted by the engine.")
        self.cancellations = counter("cancellations", "Requests whose client hung up before the end.")
        self.failures = counter("failures", "Answers that ended with an error, streams among them.", (*by, "code"))
        self.rates_unshared = Counter(
            "tritonic_rates_unshared", "Counted by this gateway alone, as Redis did not answer.", registry=self.registry
        )
        self.event_loop_lag_seconds = Histogram(
            "tritonic_event_loop_lag_seconds",
            "How late the event loop was, where it was late by more than 5 ms.",
            buckets=_LOOP_SECONDS,
            registry=self.registry,
        )
        self.event_loop_held_seconds = Histogram(
            "tritonic_event_loop_held_seconds",
            "The part of that in which this process itself kept it from running.",
            buckets=_LOOP_SECONDS,
            registry=self.registry,
        )
        self.model_failing = Gauge(
            "tritonic_model_failing",
            "1 while a model does not answer on a server that calls it ready.",
            ("model", "server"),
            registry=self.registry,
            multiprocess_mode="livemax",
        )
        self.in_flight = Gauge(
            "tritonic_in_flight", "Requests a model works on.", by, registry=self.registry, multiprocess_mode="livesum"
        )

    def exposition(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self._exposed)


@dataclass(slots=True)
class Trace:
    """One HTTP request on its way through the gateway."""

    metrics: Metrics
    request_id: str
    route: str = ""
    caller: str = ""
    """What stands for who asks (`gateway.http.rates`); empty for tasks, whose callers have left."""
    model: str = ""
    body_bytes: int = 0
    """What has come of its body; once that is read, what it unpacked is."""
    tokens: int = 0
    """What models have read and written for it so far."""
    is_large: bool = False
    """Whether work on it, or on what it refers to, belongs beside the loop (`gateway.http.offload`)."""
    reservation: MemoryReservation | None = None
    """Its body, and what was fetched for it: it keeps them until it is answered, while it waits for its model, too."""
    disconnected: bool = False
    error: GatewayError | None = None
    """How the answer ended, where it failed: a stream has its status long before."""
    started: float = field(default_factory=time.perf_counter)
    headers: dict[str, str] = field(default_factory=dict)
    """What its answer bears besides its own, however it ends."""
    charge_tokens: Callable[[str, int], None] | None = None
    """Is told the caller and the tokens at the end."""

    def measure(self, model: str) -> "AnswerMetrics":
        """Measure what `model` does for this request, inside a `with`."""
        self.model = model
        return AnswerMetrics(self)

    def record_failure(self, error: GatewayError) -> None:
        """Note how the answer failed.

        Where the error was raised is forgotten: its frames hold the body and what was made of it, and this object, so
        that all of it would wait for the garbage collector.
        """
        error.__traceback__ = error.__context__ = error.__cause__ = None
        self.error = error

    def finish(self, status: int) -> None:
        """Count the request and log one line about it."""
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
        # What monitors ask every few seconds would drown what people ask.
        write = log.debug if self.route in _PROBE_ROUTES else log.info
        write(
            "request",
            request_id=self.request_id,
            route=self.route,
            caller=self.caller or None,
            model=self.model or None,
            status=status,
            milliseconds=round(seconds * 1000, 1),
            hung_up=self.disconnected,
            **({"error": self.error.code, "reason": self.error.message[:500]} if self.error else {}),
        )


class AnswerMetrics:
    """Counts the events of one answer while a model works on it."""

    __slots__ = (
        "_first_token",
        "_in_flight",
        "_inter_token",
        "_last",
        "_started",
        "_stream",
        "_tokens_in",
        "_tokens_out",
        "_trace",
    )

    def __init__(self, trace: Trace) -> None:
        metrics, labels = trace.metrics, (trace.route, trace.model)
        self._trace = trace
        self._in_flight = metrics.in_flight.labels(*labels)
        self._first_token = metrics.first_token_seconds.labels(*labels)
        self._inter_token = metrics.inter_token_seconds.labels(*labels)
        self._tokens_in = metrics.tokens_in.labels(*labels)
        self._tokens_out = metrics.tokens_out.labels(*labels)
        self._started = trace.started
        self._last = 0.0

    def __enter__(self) -> Self:
        self._in_flight.inc()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._in_flight.dec()

    def observe(self, event: object) -> None:
        """Count one event."""
        if isinstance(event, _DELTA_EVENTS):
            self._tokens_out.inc(event.tokens)
            self._trace.tokens += event.tokens
            now = time.perf_counter()
            if self._last:
                # Tokens that travelled together were made one after another since the last ones came.
                each = (now - self._last) / max(event.tokens, 1)
                for _ in range(event.tokens):
                    self._inter_token.observe(each)
            else:
                self._first_token.observe(now - self._started)
            self._last = now
        elif isinstance(event, _USAGE_EVENTS):
            self._tokens_in.inc(event.prompt_tokens)
            self._trace.tokens += event.prompt_tokens


def configure_logging(form: Literal["json", "console"], level: str, crew: WorkerContext | None = None) -> None:
    """Write structlog's and the standard library's lines to standard error in one form; those of workers say whose."""

    def sign(logger: object, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        if crew is not None and crew.folder is not None:
            event.setdefault("worker", crew.worker_index)
        return event

    shared: list[structlog.typing.Processor] = [
        sign,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    renderer: list[structlog.typing.Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if form == "json"
        else [structlog.dev.ConsoleRenderer()]
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error"):
        logging.getLogger(name).handlers = []
        logging.getLogger(name).propagate = True
