"""Which models there are, where they run, and how to ask them.

Models describe themselves in their `config.pbtxt` (docs/architecture.md); the catalog looks at every Triton endpoint
again and again, so that models that load or unload later appear and vanish without a restart.
"""

import asyncio
import json
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any, TypeAlias

import structlog

from gateway import recognition
from gateway.admission import Admission
from gateway.endpoints import Endpoint, Model
from gateway.errors import (
    RETRY_AFTER,
    GatewayError,
    ModelNotFound,
    ModelTimeout,
    Overloaded,
    ServerGone,
    UnsupportedOption,
)
from gateway.media import scaling
from gateway.operations.chat import Chat
from gateway.operations.complete import Complete
from gateway.operations.edit_image import EditImage
from gateway.operations.embed import Embed
from gateway.operations.generate_image import GenerateImage
from gateway.operations.transcribe import Transcribe
from gateway.prompting import conversation
from gateway.telemetry import Trace
from gateway.tensors import Response
from gateway.triton import IndexEntry, ModelConfig, Triton

_DOWN_INTERVAL = 0.5
"""Seconds between two looks at a server that did not answer the last one."""

Request: TypeAlias = Chat | Complete | Embed | Transcribe | GenerateImage | EditImage

OPERATION_NAMES: Mapping[type, str] = {
    Chat: "chat",
    Complete: "complete",
    Embed: "embed",
    Transcribe: "transcribe",
    GenerateImage: "generate_image",
    EditImage: "edit_image",
}


class Catalog:
    """The models of all endpoints. Several endpoints that hold one model share its requests."""

    def __init__(
        self,
        urls: list[str],
        *,
        interval: float,
        timeout: float,
        bound: int = 2048,
        described: Mapping[str, Mapping[str, str]] = {},
        aliases: Mapping[str, str] = {},
    ) -> None:
        """`interval` is in seconds between two looks, `timeout` in seconds without a response (`Settings`).

        `bound` is how many requests one model may have open (`gateway.admission`).

        `described` are the parameters of models that do not describe themselves (`gateway.models_file`). `aliases` are
        other names of models; a model that bears such a name itself is found first.
        """
        self.endpoints = [Endpoint(Triton(url)) for url in urls]
        self._interval = interval
        self._timeout = timeout
        self._admission = Admission(bound)
        self._described = described
        self._aliases = aliases
        self._complained: set[str] = set()
        self._log = structlog.get_logger("gateway.catalog")

    def models(self) -> list[Model]:
        """One of each model that can be asked now, by name."""
        found = {model.name: model for endpoint in self.endpoints if endpoint.up for model in endpoint.models}
        return [found[name] for name in sorted(found)]

    def get(self, name: str, operation: type | None = None) -> Model:
        """Return the replica of model `name` with the least to do.

        Raises `Overloaded` when the model is known and no server that holds it answers or no server answers at all,
        `UnsupportedOption` when it does not offer the `operation`, and `ModelNotFound` otherwise.
        """
        model = self._find(name)
        if operation:
            _must_offer(model, operation)
        return model

    def is_alias(self, name: str | None) -> bool:
        """Whether `name` is another name of a model, and no model's own."""
        return name in self._aliases and not any(m.name == name for e in self.endpoints for m in e.models)

    def _find(self, name: str) -> Model:
        holders = [(e, m) for e in self.endpoints for m in e.models if m.name == name]
        if not holders and name in self._aliases:
            name = self._aliases[name]
            holders = [(e, m) for e in self.endpoints for m in e.models if m.name == name]
        shown = name[:200]
        ready = [model for endpoint, model in holders if endpoint.up]
        if ready:
            return min(ready, key=lambda model: model.endpoint.triton.in_flight)
        if holders or not any(endpoint.up for endpoint in self.endpoints):
            raise ServerGone(f"No server that could hold the model '{shown}' is reachable.", retry_after=RETRY_AFTER)
        for endpoint in self.endpoints:
            if name in endpoint.waiting:
                reason = endpoint.waiting[name]
                raise Overloaded(f"The model '{shown}' is not ready: {reason}.", retry_after=RETRY_AFTER)
        known = ", ".join(model.name for model in self.models()) or "none"
        raise ModelNotFound(f"The model '{shown}' does not exist. Models: {known}.", param="model")

    def offering(self, operation: type) -> Model | None:
        """The first model, by name, that can be asked for an operation."""
        name = OPERATION_NAMES[operation]
        return next((model for model in self.models() if name in model.operations), None)

    async def run(self, model: Model, request: Request, trace: Trace) -> AsyncGenerator[Any]:
        """Ask a model that `get` found, and yield the events of its answer.

        Closing the iterator stops the model. Raises a `GatewayError` for every failure.
        """
        _must_offer(model, type(request))
        with trace.work(model.name) as work, self._admission.open(model.name, trace.caller):
            try:
                asked, reader = request, None
                if isinstance(request, Chat):
                    asked, reader = conversation.lower(request, model.config.parameters)
                tensors = model.signature.encode(asked, model.config)
                # What is stopped by its id needs one that no other request has.
                request_id = f"{trace.request_id}/{uuid.uuid4().hex[:8]}" if model.stop else trace.request_id
                responses = model.endpoint.triton.stream(
                    model.config.name, tensors, request_id=request_id, timeout=self._timeout, stop=model.stop
                )
                async with (
                    aclosing(responses),
                    aclosing(_decoded(model, asked, responses)) as events,
                ):
                    async for event in events:
                        work.saw(event)
                        if reader is None:
                            yield event
                            continue
                        for read in reader.read(event):
                            yield read
            except GatewayError as error:
                # Not where the model itself says that it is full: looking would only add to its work.
                if isinstance(error, ServerGone | ModelNotFound):
                    model.endpoint.look_now.set()
                error = model.signature.explain(error)
                if error.param == "structured_outputs" and isinstance(asked, Complete):
                    structure = asked.sampling.structured_outputs
                    error.param = structure.param if structure else None
                if isinstance(request, Chat) and error.param == "prompt":
                    error.param = "messages"
                raise error from None

    async def ask(self, name: str, request: Request, trace: Trace) -> AsyncGenerator[Any]:
        """Do the same with the replica of model `name` that has the least to do when the iterator is first read."""
        async with aclosing(self.run(self.get(name), request, trace)) as events:
            async for event in events:
                yield event

    async def watch(self) -> None:
        """Look at the endpoints for ever, at each by itself, so that one that hangs keeps no other from being seen."""
        async with asyncio.TaskGroup() as group:
            for endpoint in self.endpoints:
                group.create_task(self._watch(endpoint))

    async def _watch(self, endpoint: Endpoint) -> None:
        """Look at each interval, and at once when a request found the server gone."""
        while True:
            try:
                await self._refresh(endpoint)
            except Exception:  # whatever a server answers, the next look may find better
                self._log.exception("discovery failed", url=endpoint.triton.url)
            try:
                # A server that is down may be back any moment, and callers wait for it.
                async with asyncio.timeout(self._interval if endpoint.up else min(self._interval, _DOWN_INTERVAL)):
                    await endpoint.look_now.wait()
                # A burst of failures must not become a burst of looks.
                await asyncio.sleep(0.1)
            except TimeoutError:
                pass
            endpoint.look_now.clear()

    async def _refresh(self, endpoint: Endpoint) -> None:
        heard = endpoint.triton.heard
        try:
            entries = await endpoint.triton.index()
            ready = [entry.name for entry in entries if entry.state == "READY"]
            configs = await asyncio.gather(*(endpoint.triton.config(name) for name in ready), return_exceptions=True)
        except GatewayError as error:
            if isinstance(error, ModelTimeout) and endpoint.up and endpoint.triton.heard != heard:
                return  # busy, or this gateway is: the answer to the look waits behind answers to requests
            if endpoint.up is not False:
                self._log.warning("triton unreachable", url=endpoint.triton.url, reason=error.message)
            endpoint.up = False
            return
        before = {model.config.name: model for model in endpoint.models}
        known = {config.name: config for config in configs if isinstance(config, ModelConfig)}
        models = []
        for name, config in zip(ready, configs, strict=True):
            # A server too busy to describe a model in time still holds it.
            model = self._describe(endpoint, config, known) if isinstance(config, ModelConfig) else before.get(name)
            if model:
                models.append(model)
                endpoint.served_names[name] = model.name
        if not endpoint.up or {m.name for m in models} != {m.name for m in endpoint.models}:
            self._log.info("models", url=endpoint.triton.url, ready=sorted(m.name for m in models))
        endpoint.models, endpoint.up = tuple(models), True
        endpoint.waiting = _waiting(entries, endpoint.served_names)

    def _describe(self, endpoint: Endpoint, config: ModelConfig, known: Mapping[str, ModelConfig]) -> Model | None:
        """Read what a model says of itself; None, with one line in the log, where that is nothing we can speak to.

        What it does not say itself may be seen all the same (`gateway.recognition`). Models that are steps of others
        of the `known` ones, or hidden, are none to ask.
        """
        if "component" in config.parameters:
            return None  # a part of another model, which speaks for it
        said = self._described.get(f"{endpoint.triton.url}/{config.name}") or self._described.get(config.name, {})
        if "hidden" in said or ("signature" not in config.parameters and recognition.is_step(config.name, known)):
            return None
        config, remark = recognition.complement(config, said)
        parameters = config.parameters
        if "signature" not in parameters:
            self._complain(config, "it does not describe itself, and its tensors are of no known layout")
            return None
        try:
            signature = recognition.SIGNATURES[parameters["signature"]]
            operations = frozenset(json.loads(parameters["operations"]))
            created = int(parameters.get("created", 0))
            signature.check(parameters)
            conversation.check(parameters)
        except (KeyError, ValueError, TypeError) as error:
            self._complain(config, f"its parameters do not describe it: {error!r}")
            return None
        for declared, expected in ((config.inputs, signature.INPUTS), (config.outputs, signature.OUTPUTS)):
            for name, datatype in expected.items():
                if declared.get(name) != datatype:
                    self._complain(config, f"tensor {name} is {declared.get(name)}, expected {datatype}")
                    return None
        if remark and config.name not in self._complained:
            self._complained.add(config.name)
            self._log.info("model complemented", model=config.name, remark=remark)
        return Model(
            name=parameters.get("served_name", config.name),
            endpoint=endpoint,
            config=config,
            signature=signature,
            operations=operations,
            owned_by=parameters.get("owned_by", "tritonic"),
            created=created,
            stop=recognition.stop(config, known),
        )

    def _complain(self, config: ModelConfig, reason: str) -> None:
        if config.name not in self._complained:
            self._complained.add(config.name)
            self._log.warning("model left out", model=config.name, reason=reason)

    async def close(self) -> None:
        """Close the connections to all endpoints."""
        for endpoint in self.endpoints:
            await endpoint.triton.close()


def _decoded(model: Model, asked: Request, responses: AsyncIterator[Response]) -> AsyncGenerator[Any]:
    events = model.signature.decode(asked, responses, model.config)
    return scaling.fitted(events, asked) if isinstance(asked, GenerateImage) and asked.scaled else events


def _must_offer(model: Model, operation: type) -> None:
    name = OPERATION_NAMES[operation]
    if name not in model.operations:
        offered = ", ".join(sorted(model.operations))
        raise UnsupportedOption(f"The model '{model.name}' cannot {name}; it can: {offered}.", param="model")


def _waiting(entries: list[IndexEntry], served_names: Mapping[str, str]) -> dict[str, str]:
    """Models that are there and not ready. A model that was unloaded on purpose is simply gone."""
    return {
        served_names.get(entry.name, entry.name): "it failed to load"
        if entry.state == "UNAVAILABLE"
        else f"it is {entry.state.lower()}"
        for entry in entries
        if entry.state not in ("", "READY") and entry.reason != "unloaded"
    }
