"""Which models there are, where they run, and how to ask them."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import ExitStack, aclosing
from functools import partial
from typing import Any, TypeAlias

from gateway.errors import (
    RETRY_AFTER_SECONDS,
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    ModelProcessUnavailable,
    Overloaded,
    ServerUnavailable,
    UnsupportedOption,
)
from gateway.http.offload import offload_if_large
from gateway.models import inference
from gateway.models.admission import Admission
from gateway.models.discovery import Discovery
from gateway.models.probe import can_be_probed, probe
from gateway.models.servers import Model, TritonServer
from gateway.observability.telemetry import Trace
from gateway.operations.chat import Chat
from gateway.operations.complete import Complete
from gateway.operations.edit_image import EditImage
from gateway.operations.embed import Embed
from gateway.operations.generate_image import GenerateImage
from gateway.operations.transcribe import Transcribe
from gateway.prompting import chat_prompt
from gateway.signatures import prompt_only
from gateway.triton.client import TritonClient
from gateway.triton.rpc.channel import Channel
from gateway.triton.transport import Connect

Request: TypeAlias = Chat | Complete | Embed | Transcribe | GenerateImage | EditImage

OPERATION_NAMES: Mapping[type, str] = {
    Chat: "chat",
    Complete: "complete",
    Embed: "embed",
    Transcribe: "transcribe",
    GenerateImage: "generate_image",
    EditImage: "edit_image",
}
_OPERATION_PHRASES = {
    "chat": "answer chats",
    "complete": "continue texts",
    "embed": "turn texts into vectors",
    "transcribe": "write down speech",
    "generate_image": "draw pictures",
    "edit_image": "edit pictures",
}


class Catalog:
    """The models of all endpoints. Several endpoints that hold one model share its requests."""

    def __init__(
        self,
        urls: list[str],
        *,
        interval: float,
        timeout: float,
        secret: str = "",
        connect: Connect = Channel,
        bound: int = 2048,
        described: Mapping[str, Mapping[str, str]] = {},
        aliases: Mapping[str, str] = {},
    ) -> None:
        """`interval` is in seconds between two looks, `timeout` in seconds without a response (`Settings`).

        `secret` opens what the endpoints restrict, and `connect` makes their transports (`gateway.triton.client`).

        `bound` is how many requests one model may have open (`gateway.models.admission`).

        `described` are the parameters of models that do not describe themselves (`gateway.models.models_file`).
        `aliases` are other names of models; a model that bears such a name itself is found first.
        """
        self.servers = [TritonServer(TritonClient(url, secret, connect)) for url in urls]
        self._discovery = Discovery(self.servers, interval, described)
        self._timeout = timeout
        self._admission = Admission(bound)
        self._aliases = aliases

    def models(self) -> list[Model]:
        """One of each model that can be asked now, by name."""
        found = {model.name: model for endpoint in self.servers for model in endpoint.serving_models}
        return [found[name] for name in sorted(found)]

    def get(self, name: str, operation: type | None = None) -> Model:
        """Return the replica of model `name` with the least to do.

        Raises `Overloaded` when the model is known and no server that holds it answers or no server answers at all,
        `UnsupportedOption` when it does not offer the `operation`, and `ModelNotFound` otherwise.
        """
        model = self._find(name)
        if operation:
            _require_operation(model, operation)
        return model

    def is_alias(self, name: str | None) -> bool:
        """Whether `name` is another name of a model, and no model's own."""
        return name in self._aliases and not any(m.name == name for e in self.servers for m in e.models)

    def _find(self, name: str) -> Model:
        holders = [(e, m) for e in self.servers for m in e.models if m.name == name]
        if not holders and name in self._aliases:
            name = self._aliases[name]
            holders = [(e, m) for e in self.servers for m in e.models if m.name == name]
        shown = name[:200]
        ready = [model for endpoint, model in holders if model in endpoint.serving_models]
        if ready:
            # Those that fail have the least to do.
            return min(ready, key=lambda m: (m.server.breaker.is_suspect(m.config.name), m.server.client.in_flight))
        if holders or not any(endpoint.is_reachable for endpoint in self.servers):
            raise ServerUnavailable(
                f"No server that could hold the model '{shown}' is reachable.", retry_after=RETRY_AFTER_SECONDS
            )
        for endpoint in self.servers:
            if name in endpoint.not_ready:
                reason = endpoint.not_ready[name]
                raise Overloaded(f"The model '{shown}' is not ready: {reason}.", retry_after=RETRY_AFTER_SECONDS)
        known = ", ".join(model.name for model in self.models()) or "none"
        raise ModelNotFound(f"The model '{shown}' does not exist. Models: {known}.", param="model")

    def failing_models(self) -> list[str]:
        """Those of `models` that do not answer on any server, by name: requests are tried all the same."""
        serving = {(m.name, e.breaker.is_open(m.config.name)) for e in self.servers for m in e.serving_models}
        return sorted(name for name, is_open in serving if is_open and (name, False) not in serving)

    def first_model_for(self, operation: type) -> Model | None:
        """The first model, by name, that can be asked for an operation."""
        name = OPERATION_NAMES[operation]
        return next((model for model in self.models() if name in model.operations), None)

    async def run(self, model: Model, request: Request, trace: Trace) -> AsyncGenerator[Any]:
        """Ask a model that `get` found, and yield the events of its answer.

        Closing the iterator stops the model. Raises a `GatewayError` for every failure.
        """
        _require_operation(model, type(request))
        if prompt_only.is_prompt_only(request) and "token_ids" not in model.config.inputs:  # a model of others
            answered = self.run(model, prompt_only.to_one_token(request), trace)
            async with aclosing(prompt_only.drop_completion(request, answered)) as events:
                async for event in events:
                    yield event
            return
        with trace.measure(model.name) as work, ExitStack() as places:
            places.enter_context(self._admission.open(model.name, trace.caller))
            try:
                asked, reader, given = request, None, False
                if isinstance(request, Chat):
                    # An input that only the back end of this project has, which takes structural tags, too.
                    ours = "literal_spans" in model.config.inputs
                    lower = partial(
                        chat_prompt.build_completion,
                        request,
                        model.config.parameters,
                        literal_spans=ours,
                        structural_tags=ours,
                    )
                    asked, reader = await offload_if_large(trace, lower)
                questions = await inference.build_requests(model, asked, trace)
                if len(questions) > self._admission.max_per_caller:
                    most = (
                        "This model is asked for each answer by itself; "
                        f"{self._admission.max_per_caller} may be at once."
                    )
                    raise InvalidRequest(most, param="n")
                for _ in questions[1:]:
                    places.enter_context(self._admission.open(model.name, trace.caller))
                events = inference.stream_events(model, questions, request_id=trace.request_id, timeout=self._timeout)
                del questions  # the answer may take minutes
                given = True
                async with aclosing(events):
                    async for event in events:
                        work.observe(event)
                        for read in reader.read(event) if reader else (event,):
                            yield read
                if model.server.breaker:
                    model.server.breaker.record_success(model.config.name)
            except GatewayError as error:
                # Not where the model itself says that it is full: looking would only add to its work.
                if isinstance(error, ServerUnavailable | ModelNotFound):
                    model.server.refresh_now.set()
                if isinstance(error, ModelProcessUnavailable):
                    model.server.avoid(model.config.name)
                error = model.signature.explain(error)
                if given:
                    self._record_failure(model, error, trace)
                if error.param == "structured_outputs" and isinstance(asked, Complete):
                    structure = asked.sampling.structured_outputs
                    error.param = structure.param if structure else None
                if isinstance(request, Chat) and error.param == "prompt":
                    error.param = "messages"
                raise error from None

    def _record_failure(self, model: Model, error: GatewayError, trace: Trace) -> None:
        """Have a failure counted that may speak of the model."""
        probing = partial(probe, model, self._timeout) if can_be_probed(model) else None
        failing = trace.metrics.model_failing.labels(model.name, model.server.client.url)
        model.server.breaker.record_failure(model.config.name, error, probing, failing.set)

    async def run_by_name(self, name: str, request: Request, trace: Trace) -> AsyncGenerator[Any]:
        """Do the same with the replica of model `name` that has the least to do when the iterator is first read."""
        async with aclosing(self.run(self.get(name), request, trace)) as events:
            async for event in events:
                yield event

    async def watch(self) -> None:
        """Look for models for ever."""
        await self._discovery.watch()

    async def close(self) -> None:
        """Close the connections to all endpoints."""
        for endpoint in self.servers:
            endpoint.breaker.reset()
            await endpoint.client.close()


def _require_operation(model: Model, operation: type) -> None:
    name = OPERATION_NAMES[operation]
    if name not in model.operations:
        can = ", ".join(_OPERATION_PHRASES.get(each, each) for each in sorted(model.operations))
        raise UnsupportedOption(
            f"The model '{model.name}' cannot {_OPERATION_PHRASES[name]}; it can {can}.", param="model"
        )
