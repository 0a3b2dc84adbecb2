"""Looks for models on every server, again and again.

Models describe themselves in their `config.pbtxt` (docs/architecture.md). Those that load or unload later appear and
vanish without a restart.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence

import structlog

from gateway.errors import GatewayError, ModelTimeout
from gateway.model_card import card as model_card
from gateway.models.servers import Model, TritonServer
from gateway.prompting import chat_prompt
from gateway.signatures import registry
from gateway.triton.client import SECRET_HEADER, IndexEntry, ModelConfig
from gateway.triton.failures import ProtocolRestricted

_DOWN_INTERVAL_SECONDS = 0.5
"""Seconds between two looks at a server that did not answer the last one."""
_RETRY_TIMEOUT_SECONDS = 1.0
"""How long a server may take for the look after one that it did not answer in time."""


class Discovery:
    """Keeps what endpoints are known to hold true."""

    def __init__(
        self, endpoints: Sequence[TritonServer], interval: float, described: Mapping[str, Mapping[str, str]]
    ) -> None:
        """`interval` is in seconds between two looks; `described` as in `Catalog`."""
        self._endpoints = endpoints
        self._interval = interval
        self._described = described
        self._warned: set[str] = set()
        self._log = structlog.get_logger("gateway.models.catalog")

    async def watch(self) -> None:
        """Look at the endpoints for ever, at each by itself, so that one that hangs keeps no other from being seen."""
        async with asyncio.TaskGroup() as group:
            for endpoint in self._endpoints:
                group.create_task(self._watch(endpoint))

    async def _watch(self, endpoint: TritonServer) -> None:
        """Look at each interval, and at once when a request found the server gone."""
        while True:
            try:
                await self._refresh(endpoint)
            except Exception:  # whatever a server answers, the next look may find better
                self._log.exception("discovery failed", url=endpoint.client.url)
            try:
                # A server that is down may be back any moment, and callers wait for it.
                async with asyncio.timeout(
                    self._interval if endpoint.is_reachable else min(self._interval, _DOWN_INTERVAL_SECONDS)
                ):
                    await endpoint.refresh_now.wait()
                # A burst of failures must not become a burst of looks.
                await asyncio.sleep(0.1)
            except TimeoutError:
                pass
            endpoint.refresh_now.clear()

    async def _refresh(self, endpoint: TritonServer) -> None:
        heard = endpoint.client.responses_received
        try:
            entries = await _repository_index(endpoint)
            ready = [entry.name for entry in entries if entry.state == "READY"]
            configs = await asyncio.gather(*(endpoint.client.config(name) for name in ready), return_exceptions=True)
            if refused := next((each for each in configs if isinstance(each, ProtocolRestricted)), None):
                raise refused
        except ProtocolRestricted as error:
            self._mark_restricted(endpoint, str(error.__cause__ or error.message))
            return
        except GatewayError as error:
            if (
                isinstance(error, ModelTimeout)
                and endpoint.is_reachable
                and endpoint.client.responses_received != heard
            ):
                return  # busy, or this gateway is: the answer to the look waits behind answers to requests
            reason = str(error.__cause__ or error.message)
            if endpoint.is_reachable is not False or reason != endpoint.last_error:
                self._log.warning("triton unreachable", url=endpoint.client.url, reason=reason)
            endpoint.is_reachable, endpoint.last_error = False, reason
            return
        if not endpoint.is_reachable:
            endpoint.avoided_until.clear()  # its processes are new ones
            endpoint.breaker.reset()
        if endpoint.is_reachable and list(map(id, configs)) == list(map(id, endpoint.seen_configs)):
            endpoint.not_ready = _not_ready(entries, endpoint.served_names)
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
        if not endpoint.is_reachable or {m.name for m in models} != {m.name for m in endpoint.models}:
            self._log.info("models", url=endpoint.client.url, ready=sorted(m.name for m in models))
        endpoint.models, endpoint.seen_configs, endpoint.is_reachable, endpoint.last_error = (
            tuple(models),
            tuple(configs),
            True,
            "",
        )
        endpoint.not_ready = _not_ready(entries, endpoint.served_names)

    def _mark_restricted(self, endpoint: TritonServer, reason: str) -> None:
        """The server answers, and does not say what it holds."""
        if not endpoint.is_reachable or endpoint.last_error != reason:
            remedy = (
                "TRITONIC_TRITON_SECRET must be the secret that this Triton was started with, "
                f"--grpc-restricted-protocol=…:{SECRET_HEADER.removeprefix('triton-grpc-protocol-')}=SECRET"
            )
            self._log.warning("triton refuses to be looked at", url=endpoint.client.url, reason=reason, remedy=remedy)
        endpoint.is_reachable, endpoint.last_error = True, reason
        endpoint.models, endpoint.seen_configs, endpoint.not_ready = (), (None,), {}

    def _describe(self, endpoint: TritonServer, config: ModelConfig, known: Mapping[str, ModelConfig]) -> Model | None:
        """Read what a model says of itself; None, with one line in the log, where that is nothing we can speak to.

        What it does not say itself may be seen all the same (`gateway.signatures.registry`). Models that are steps of
        others of the `known` ones, or hidden, are none to ask.
        """
        if model_card.is_component(config):
            return None  # a part of another model, which speaks for it
        said = self._described.get(f"{endpoint.client.url}/{config.name}") or self._described.get(config.name, {})
        if "hidden" in said or ("signature" not in config.parameters and registry.is_ensemble_step(config.name, known)):
            return None
        config, remark = registry.complete_config(config, said, known)
        if "signature" not in config.parameters:
            self._warn_once(config, "it does not describe itself, and its tensors are of no known layout")
            return None
        try:
            card = model_card.parse(config)
            signature = registry.SIGNATURES[card.signature]
            chat_prompt.check(card.text)
        except (KeyError, ValueError, TypeError) as error:
            self._warn_once(config, f"its parameters do not describe it: {error!r}")
            return None
        for declared, expected in ((config.inputs, signature.inputs), (config.outputs, signature.outputs)):
            for name, datatype in expected.items():
                if declared.get(name) != datatype:
                    self._warn_once(config, f"tensor {name} is {declared.get(name)}, expected {datatype}")
                    return None
        if remark and config.name not in self._warned:
            self._warned.add(config.name)
            self._log.info("model complemented", model=config.name, remark=remark)
        return Model(
            name=card.name,
            server=endpoint,
            card=card,
            signature=signature,
            created=card.created or endpoint.first_seen.setdefault(config.name, int(time.time())),
            stop_request=registry.find_stop_request(config, known),
        )

    def _warn_once(self, config: ModelConfig, reason: str) -> None:
        if config.name not in self._warned:
            self._warned.add(config.name)
            self._log.warning("model left out", model=config.name, reason=reason)


async def _repository_index(endpoint: TritonServer) -> list[IndexEntry]:
    """The server's models. One that answered so far is asked twice before it counts as gone.

    Where this process was stopped for seconds (a paused virtual machine, a debugger), its timers run out before it
    reads what has arrived meanwhile. The second look has a new connection where nothing came over the old one.
    """
    try:
        return await endpoint.client.repository_index()
    except ModelTimeout:
        if not endpoint.is_reachable:
            raise
        return await endpoint.client.repository_index(timeout=_RETRY_TIMEOUT_SECONDS)


def _not_ready(entries: list[IndexEntry], served_names: Mapping[str, str]) -> dict[str, str]:
    """Models that are there and not ready. A model that was unloaded on purpose is simply gone."""
    return {
        served_names.get(entry.name, entry.name): "it failed to load"
        if entry.state == "UNAVAILABLE"
        else f"it is {entry.state.lower()}"
        for entry in entries
        if entry.state not in ("", "READY") and entry.reason != "unloaded"
    }
