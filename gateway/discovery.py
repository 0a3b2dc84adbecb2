"""Looks for models on every server, again and again.

Models describe themselves in their `config.pbtxt` (docs/architecture.md). Those that load or unload later appear and
vanish without a restart.
"""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence

import structlog

from gateway import recognition
from gateway.endpoints import Endpoint, Model
from gateway.errors import GatewayError, ModelTimeout
from gateway.prompting import conversation
from gateway.triton import SECRET_HEADER, IndexEntry, ModelConfig
from gateway.triton_failures import Restricted

_DOWN_INTERVAL = 0.5
"""Seconds between two looks at a server that did not answer the last one."""
_SECOND_LOOK_SECONDS = 1.0
"""How long a server may take for the look after one that it did not answer in time."""


class Discovery:
    """Keeps what endpoints are known to hold true."""

    def __init__(
        self, endpoints: Sequence[Endpoint], interval: float, described: Mapping[str, Mapping[str, str]]
    ) -> None:
        """`interval` is in seconds between two looks; `described` as in `Catalog`."""
        self._endpoints = endpoints
        self._interval = interval
        self._said = described
        self._complained: set[str] = set()
        self._log = structlog.get_logger("gateway.catalog")

    async def watch(self) -> None:
        """Look at the endpoints for ever, at each by itself, so that one that hangs keeps no other from being seen."""
        async with asyncio.TaskGroup() as group:
            for endpoint in self._endpoints:
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
            entries = await _index(endpoint)
            ready = [entry.name for entry in entries if entry.state == "READY"]
            configs = await asyncio.gather(*(endpoint.triton.config(name) for name in ready), return_exceptions=True)
            if refused := next((each for each in configs if isinstance(each, Restricted)), None):
                raise refused
        except Restricted as error:
            self._restricted(endpoint, str(error.__cause__ or error.message))
            return
        except GatewayError as error:
            if isinstance(error, ModelTimeout) and endpoint.up and endpoint.triton.heard != heard:
                return  # busy, or this gateway is: the answer to the look waits behind answers to requests
            reason = str(error.__cause__ or error.message)
            if endpoint.up is not False or reason != endpoint.trouble:
                self._log.warning("triton unreachable", url=endpoint.triton.url, reason=reason)
            endpoint.up, endpoint.trouble = False, reason
            return
        if not endpoint.up:
            endpoint.avoided.clear()  # its processes are new ones
            endpoint.breaker.forget()
        if endpoint.up and list(map(id, configs)) == list(map(id, endpoint.seen)):
            endpoint.waiting = _waiting(entries, endpoint.served_names)
            return  # nothing has changed
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
        endpoint.models, endpoint.seen, endpoint.up, endpoint.trouble = tuple(models), tuple(configs), True, ""
        endpoint.waiting = _waiting(entries, endpoint.served_names)

    def _restricted(self, endpoint: Endpoint, reason: str) -> None:
        """The server answers, and does not say what it holds."""
        if not endpoint.up or endpoint.trouble != reason:
            remedy = (
                "TRITONIC_TRITON_SECRET must be the secret that this Triton was started with, "
                f"--grpc-restricted-protocol=…:{SECRET_HEADER.removeprefix('triton-grpc-protocol-')}=SECRET"
            )
            self._log.warning("triton refuses to be looked at", url=endpoint.triton.url, reason=reason, remedy=remedy)
        endpoint.up, endpoint.trouble = True, reason
        endpoint.models, endpoint.seen, endpoint.waiting = (), (None,), {}

    def _describe(self, endpoint: Endpoint, config: ModelConfig, known: Mapping[str, ModelConfig]) -> Model | None:
        """Read what a model says of itself; None, with one line in the log, where that is nothing we can speak to.

        What it does not say itself may be seen all the same (`gateway.recognition`). Models that are steps of others
        of the `known` ones, or hidden, are none to ask.
        """
        if "component" in config.parameters:
            return None  # a part of another model, which speaks for it
        said = self._said.get(f"{endpoint.triton.url}/{config.name}") or self._said.get(config.name, {})
        if "hidden" in said or ("signature" not in config.parameters and recognition.is_step(config.name, known)):
            return None
        config, remark = recognition.complement(config, said, known)
        parameters = config.parameters
        if "signature" not in parameters:
            self._complain(config, "it does not describe itself, and its tensors are of no known layout")
            return None
        try:
            signature = recognition.SIGNATURES[parameters["signature"]]
            operations = frozenset(json.loads(parameters["operations"]))
            created = int(parameters.get("created", 0))
            created = created or endpoint.first_seen.setdefault(config.name, int(time.time()))
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


async def _index(endpoint: Endpoint) -> list[IndexEntry]:
    """The server's models. One that answered so far is asked twice before it counts as gone.

    Where this process was stopped for seconds (a paused virtual machine, a debugger), its timers run out before it
    reads what has arrived meanwhile. The second look has a new connection where nothing came over the old one.
    """
    try:
        return await endpoint.triton.index()
    except ModelTimeout:
        if not endpoint.up:
            raise
        return await endpoint.triton.index(timeout=_SECOND_LOOK_SECONDS)


def _waiting(entries: list[IndexEntry], served_names: Mapping[str, str]) -> dict[str, str]:
    """Models that are there and not ready. A model that was unloaded on purpose is simply gone."""
    return {
        served_names.get(entry.name, entry.name): "it failed to load"
        if entry.state == "UNAVAILABLE"
        else f"it is {entry.state.lower()}"
        for entry in entries
        if entry.state not in ("", "READY") and entry.reason != "unloaded"
    }
