"""The models of all Triton servers: finds a replica for a request and runs it."""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import ExitStack, aclosing
from functools import partial
from typing import Any

from gateway.errors import (
    RETRY_AFTER_SECONDS,
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    ModelProcessUnavailable,
    Overloaded,
    ServerUnavailable,
)
from gateway.models import inference
from gateway.models.admission import Admission
from gateway.models.discovery import Discovery
from gateway.models.probe import can_be_probed, probe
from gateway.models.servers import Model, TritonServer
from gateway.observability.telemetry import Trace
from gateway.operations.operation import Operation
from gateway.operations.registry import require_operation
from gateway.signatures.call import Call
from gateway.triton.client import TritonClient
from gateway.triton.rpc.channel import Channel
from gateway.triton.transport import Connect


class Catalog:
    """The models of all servers. Servers that hold the same model share its requests."""

    def __init__(
        self,
        urls: list[str],
        *,
        interval: float,
        timeout: float,
        secret: str = "",
        connect: Connect = Channel,
        max_open_requests: int = 2048,
        descriptions: Mapping[str, Mapping[str, str]] = {},
        aliases: Mapping[str, str] = {},
    ) -> None:
        """`urls` are the gRPC addresses of the servers (`TritonClient`).

        `interval` is the time between two discoveries, `timeout` the longest silence of a model, both in seconds.
        `secret` opens the protocols that the servers restrict, and `connect` creates their transports
        (`gateway.triton.client`).
        `max_open_requests` is the number of requests that one model may have open (`gateway.models.admission`).
        `descriptions` are the parameters of models that do not describe themselves (`gateway.models.models_file`).
        `aliases` are other names of models. The own name of a model takes precedence over an alias.
        """
        self.servers = [TritonServer(TritonClient(url, secret, connect)) for url in urls]
        self._discovery = Discovery(self.servers, interval, descriptions)
        self._timeout = timeout
        self._admission = Admission(max_open_requests)
        self._aliases = aliases

    def models(self) -> list[Model]:
        """Return one replica of each model that serves requests now, ordered by name."""
        found: dict[str, Model] = {}
        for server in self.servers:
            for model in server.serving_models:
                if model.name not in found or model.identity <= found[model.name].identity:
                    found[model.name] = model
        return [found[name] for name in sorted(found)]

    def get(self, name: str, operation: type[Operation] | None = None) -> Model:
        """Return the replica of model `name` on the server with the fewest requests in flight.

        Raises `ServerUnavailable` when no server that holds it, or no server at all, is reachable, `Overloaded` when it
        is not ready, `ModelNotFound` when no server holds it, and `UnsupportedOption` when it does not offer the
        `operation`.
        """
        model = self._find(name)
        if operation:
            require_operation(model.name, model.operations, operation)
        return model

    def is_alias(self, name: str | None) -> bool:
        """Return whether `name` is an alias, and not the own name of any model."""
        return name in self._aliases and not any(m.name == name for server in self.servers for m in server.models)

    def _find(self, name: str) -> Model:
        holders = self._holders(name)
        if not holders and name in self._aliases:
            name = self._aliases[name]
            holders = self._holders(name)
        shown = name[:200]
        ready = [model for model in holders if model in model.server.serving_models]
        if ready:
            return min(ready, key=_preference)
        if holders or not any(server.is_reachable for server in self.servers):
            raise ServerUnavailable(
                f"No server that may have the model '{shown}' is reachable.", retry_after=RETRY_AFTER_SECONDS
            )
        for server in self.servers:
            if name in server.not_ready:
                reason = server.not_ready[name]
                raise Overloaded(f"The model '{shown}' is not ready: {reason}.", retry_after=RETRY_AFTER_SECONDS)
        known = ", ".join(model.name for model in self.models()) or "none"
        raise ModelNotFound(f"The model '{shown}' does not exist. Models: {known}.", param="model")

    def _holders(self, name: str) -> list[Model]:
        """Return the replicas of a model, also those that serve no requests now."""
        named = [model for server in self.servers for model in server.models if model.name == name]
        owner = min((model.identity for model in named), default=None)
        return [model for model in named if model.identity == owner]

    def failing_models(self) -> list[str]:
        """Return the names of `models` whose circuit is open on every server. Requests to them are still tried."""
        serving = {
            (m.name, server.breaker.is_open(m.config.name)) for server in self.servers for m in server.serving_models
        }
        return sorted(name for name, is_open in serving if is_open and (name, False) not in serving)

    def first_model_for(self, operation: type[Operation]) -> Model | None:
        """Return the first model, by name, that offers an operation and is no adapter; None where there is none."""
        return next((m for m in self.models() if operation.operation in m.operations and m.card.adapter is None), None)

    def get_or_first(
        self, name: str | None, operation: type[Operation], missing: str = "No model supports this operation."
    ) -> Model:
        """Return the model `name`, or without a name the first one for an operation.

        Raises as `get` does, and `ModelNotFound` with the message `missing` if no model offers the operation.
        """
        model = self.get(name, operation) if name else self.first_model_for(operation)
        if model is None:
            raise ModelNotFound(missing, param="model")
        return model

    async def run(self, model: Model, request: Operation, trace: Trace) -> AsyncGenerator[Any]:
        """Send a request to a model that `get` returned, and yield the events of its answer.

        If its server is gone before the first event, the request is sent to another server that holds the model, once.
        Closing the iterator cancels the request. Raises a `GatewayError` for every failure.
        """
        require_operation(model.name, model.operations, type(request))
        may_fail_over = True
        while True:
            codec = model.codec(request.operation)
            responded = False
            try:
                with trace.measure(model.name, request, model.server.client.url) as work, ExitStack() as admissions:
                    admissions.enter_context(self._admission.open(model.name, trace.caller))
                    explain: Callable[[GatewayError], GatewayError] = _unchanged
                    sent = False
                    try:
                        call = await inference.open_call(model, codec, request, trace)
                        explain, read = call.explain, call.read
                        self._admit_all(model, call, trace, admissions)
                        events = inference.stream_events(
                            model,
                            call.requests,
                            request_id=trace.request_id,
                            timeout=self._timeout,
                            headers=work.headers,
                            sequence=call.sequence,
                        )
                        del call  # its tensors may have a hundred megabytes, and the answer may take minutes
                        sent = True
                        async with aclosing(events):
                            async for event in events:
                                responded = True
                                work.observe(event)
                                for shown in read(event) if read else (event,):
                                    yield shown
                        if model.server.breaker:
                            model.server.breaker.record_success(model.config.name)
                    except GatewayError as error:
                        _update_server(model, error)
                        error = explain(error)
                        if sent:
                            self._record_failure(model, error, trace)
                        raise error from None
                return
            except ServerUnavailable:
                # Once only: the request itself may be what ends a server.
                other = self._find_other(model, request) if may_fail_over and not responded else None
                if other is None:
                    raise
                model, may_fail_over = other, False

    def _admit_all(self, model: Model, call: Call, trace: Trace, admissions: ExitStack) -> None:
        """Admit the requests of a call after its first. Raises `InvalidRequest` if a caller may not have so many."""
        if len(call.requests) > self._admission.max_per_caller:
            message = (
                "This model generates one answer per request, and a caller may have at most "
                f"{self._admission.max_per_caller} requests open: reduce 'n'."
            )
            raise InvalidRequest(message, param="n")
        for _ in call.requests[1:]:
            admissions.enter_context(self._admission.open(model.name, trace.caller))

    def _find_other(self, model: Model, request: Operation) -> Model | None:
        """Return the replica of a model on another server that serves it now; None if there is none."""
        others = (
            other
            for server in self.servers
            for other in server.serving_models
            if server is not model.server and other.identity == model.identity and request.operation in other.operations
        )
        return min(others, key=_preference, default=None)

    def _record_failure(self, model: Model, error: GatewayError, trace: Trace) -> None:
        """Report a failure of a sent request to the circuit breaker."""
        send_probe = partial(probe, model, self._timeout) if can_be_probed(model) else None
        failing = trace.metrics.model_failing.labels(model.name, model.server.client.url)
        model.server.breaker.record_failure(model.config.name, error, send_probe, failing.set)

    async def run_by_name(self, name: str, request: Operation, trace: Trace) -> AsyncGenerator[Any]:
        """Run a request as `run` does, on the replica that `get` returns when the iterator is first read."""
        async with aclosing(self.run(self.get(name), request, trace)) as events:
            async for event in events:
                yield event

    async def watch(self) -> None:
        """Discover models until cancelled."""
        await self._discovery.watch()

    async def close(self) -> None:
        """Close the connections to all servers."""
        for server in self.servers:
            server.breaker.reset()
            await server.client.close()


def _update_server(model: Model, error: GatewayError) -> None:
    """Trigger the discovery of a server that seems gone, and avoid a model whose process is gone.

    A model with a full queue is still there: discovery would only add to its load.
    """
    if isinstance(error, ServerUnavailable | ModelNotFound):
        model.server.refresh_now.set()
    if isinstance(error, ModelProcessUnavailable):
        model.server.avoid(model.config.name)


def _preference(model: Model) -> tuple[bool, bool, int]:
    """Return the sort key of a replica; the lowest is chosen.

    A model that fails at once, and a server that has just become silent, would attract requests: few are in flight.
    """
    server = model.server
    return server.breaker.is_suspect(model.config.name), server.is_silent, server.client.in_flight


def _unchanged(error: GatewayError) -> GatewayError:
    return error
