"""Discovers the models of every server at an interval.

Models describe themselves in their `config.pbtxt` (docs/architecture.md). A model that is loaded or unloaded later
appears or disappears without a restart of the gateway.
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
from gateway.triton.client import SECRET_HEADER, IndexEntry
from gateway.triton.failures import ProtocolRestricted
from gateway.triton.model_config import ModelConfig

_DOWN_INTERVAL_SECONDS = 0.5
"""Seconds between two discoveries of a server that did not answer the last one."""
_RETRY_TIMEOUT_SECONDS = 1.0
"""Seconds that a server may take for the second try, after it did not answer the first in time."""
_GIVE_UP_SECONDS = 3.0
"""Seconds without any answer after which requests of a server move to another one, if they have no response yet."""
_GRACE_SECONDS = 0.1
"""Seconds in which the event loop reads what has arrived, before a server counts as silent."""


class Discovery:
    """Keeps the models of the servers up to date."""

    def __init__(
        self, servers: Sequence[TritonServer], interval: float, descriptions: Mapping[str, Mapping[str, str]]
    ) -> None:
        """`interval` is the time between two discoveries in seconds; `descriptions` is that of `Catalog`."""
        self._servers = servers
        self._interval = interval
        self._descriptions = descriptions
        self._warned: set[str] = set()
        self._log = structlog.get_logger("gateway.models.catalog")

    async def watch(self) -> None:
        """Discover models until cancelled. Each server has its own task, so that one that hangs delays no other."""
        async with asyncio.TaskGroup() as group:
            for server in self._servers:
                group.create_task(self._watch(server))

    async def _watch(self, server: TritonServer) -> None:
        """Refresh a server at each interval, and immediately after a request failed because the server was gone."""
        while True:
            try:
                await self._refresh(server)
            except Exception:  # whatever the server answered, the next refresh may succeed
                self._log.exception("discovery failed", url=server.client.url)
            try:
                # A server that is down may be back at any moment, and callers wait for it.
                async with asyncio.timeout(
                    self._interval if server.is_reachable else min(self._interval, _DOWN_INTERVAL_SECONDS)
                ):
                    await server.refresh_now.wait()
                # A burst of failures must not become a burst of refreshes.
                await asyncio.sleep(0.1)
            except TimeoutError:
                pass
            server.refresh_now.clear()

    async def _refresh(self, server: TritonServer) -> None:
        responses_before = server.client.responses_received
        try:
            entries = await self._repository_index(server)
            ready = [entry.name for entry in entries if entry.state == "READY"]
            configs = await asyncio.gather(*(server.client.config(name) for name in ready), return_exceptions=True)
            if refused := next((config for config in configs if isinstance(config, ProtocolRestricted)), None):
                raise refused
        except ProtocolRestricted as error:
            self._mark_restricted(server, str(error.__cause__ or error.message))
            return
        except GatewayError as error:
            if (
                isinstance(error, ModelTimeout)
                and server.is_reachable
                and server.client.responses_received != responses_before
            ):
                return  # the server or the gateway is busy: the response is queued behind those of other requests
            reason = str(error.__cause__ or error.message)
            if server.is_reachable is not False or reason != server.last_error:
                self._log.warning("triton unreachable", url=server.client.url, reason=reason)
            server.is_reachable, server.last_error = False, reason
            return
        if not server.is_reachable:
            server.avoided_until.clear()  # its processes are new
            server.breaker.reset()
        if server.is_reachable and list(map(id, configs)) == list(map(id, server.seen_configs)):
            server.not_ready = _not_ready(entries, server.served_names)
            return  # nothing has changed
        before: dict[str, list[Model]] = {}
        for model in server.models:
            before.setdefault(model.config.name, []).append(model)
        known = {config.name: config for config in configs if isinstance(config, ModelConfig)}
        models: list[Model] = []
        for name, config in zip(ready, configs, strict=True):
            # A server too busy to describe a model in time still holds it.
            described = (
                self._describe(server, config, known) if isinstance(config, ModelConfig) else before.get(name, [])
            )
            models += described
            if described:
                server.served_names[name] = tuple(model.name for model in described)
        if not server.is_reachable or {m.name for m in models} != {m.name for m in server.models}:
            self._log.info("models", url=server.client.url, ready=sorted(m.name for m in models))
        server.models, server.seen_configs, server.is_reachable, server.last_error = (
            tuple(models),
            tuple(configs),
            True,
            "",
        )
        server.not_ready = _not_ready(entries, server.served_names)

    async def _repository_index(self, server: TritonServer) -> list[IndexEntry]:
        """Return the models of a server. A server that responded before gets a second try before it counts as gone.

        Where this process was stopped for seconds (a paused virtual machine, a debugger), its timers expire before it
        reads the data that has arrived meanwhile. The second try uses a new connection where nothing came over the old
        one.
        """
        server.asked_since = time.monotonic()
        giving_up = asyncio.create_task(self._give_up_unanswered(server))
        try:
            return await server.client.repository_index()
        except ModelTimeout:
            if not server.is_reachable:
                raise
            return await server.client.repository_index(timeout=_RETRY_TIMEOUT_SECONDS)
        finally:
            giving_up.cancel()
            server.asked_since = None

    async def _give_up_unanswered(self, server: TritonServer) -> None:
        """Move the requests that have no response to other servers, if this one sends nothing at all for a while.

        Only models that another server holds are affected, with the same adapter: a request that nobody else can answer
        goes on waiting. The catalog sends each request to a second server once.
        """
        before = server.client.responses_received
        await asyncio.sleep(_GIVE_UP_SECONDS)
        await asyncio.sleep(_GRACE_SECONDS)
        if server.client.responses_received != before:
            return
        elsewhere = {
            model.identity
            for other in self._servers
            if other is not server and not other.is_silent
            for model in other.serving_models
        }
        server.client.give_up_unanswered({model.name for model in server.models if model.identity in elsewhere})

    def _mark_restricted(self, server: TritonServer, reason: str) -> None:
        """Record that the server responds, but refuses to list its models."""
        if not server.is_reachable or server.last_error != reason:
            remedy = (
                "TRITONIC_TRITON_SECRET must be the secret that this Triton was started with, "
                f"--grpc-restricted-protocol=…:{SECRET_HEADER.removeprefix('triton-grpc-protocol-')}=SECRET"
            )
            self._log.warning("triton refuses to list its models", url=server.client.url, reason=reason, remedy=remedy)
        server.is_reachable, server.last_error = True, reason
        server.models, server.seen_configs, server.not_ready = (), (None,), {}

    def _describe(self, server: TritonServer, config: ModelConfig, known: Mapping[str, ModelConfig]) -> list[Model]:
        """Return a model as its parameters describe it, and one for each of its LoRA adapters.

        Returns nothing, with a log line, if the parameters are missing or invalid.

        `gateway.signatures.registry` adds missing parameters. Components of other models, steps of an ensemble among
        the `known` models, and hidden models are skipped without a log line.
        """
        if model_card.is_component(config):
            return []  # it is a part of another model
        described = self._descriptions.get(f"{server.client.url}/{config.name}") or self._descriptions.get(
            config.name, {}
        )
        if "hidden" in described or (
            "signature" not in config.parameters and registry.is_ensemble_step(config.name, known)
        ):
            return []
        config, remark = registry.complete_config(config, described, known)
        if "signature" not in config.parameters:
            self._warn_once(config, "it has no parameter signature, and its tensors match no known signature")
            return []
        try:
            card = model_card.parse(config)
            cards = [card, *card.adapter_cards()]
            signature = registry.SIGNATURES[card.signature]
            chat_prompt.check(card.text)
            if card.text.adapters and not signature.carries_adapters:
                raise ValueError(f"the signature {card.signature} carries no adapters")
        except (KeyError, ValueError, TypeError) as error:
            self._warn_once(config, f"its parameters are invalid: {error!r}")
            return []
        for declared, expected in ((config.inputs, signature.inputs), (config.outputs, signature.outputs)):
            for name, datatype in expected.items():
                if declared.get(name) != datatype:
                    self._warn_once(config, f"tensor {name} is {declared.get(name)}, expected {datatype}")
                    return []
        if remark and config.name not in self._warned:
            self._warned.add(config.name)
            self._log.info("model complemented", model=config.name, remark=remark)
        created = card.created or server.first_seen.setdefault(config.name, int(time.time()))
        stop_request = registry.find_stop_request(config, known)
        return [
            Model(
                name=card.name,
                server=server,
                card=card,
                signature=signature,
                created=created,
                stop_request=stop_request,
            )
            for card in cards
        ]

    def _warn_once(self, config: ModelConfig, reason: str) -> None:
        if config.name not in self._warned:
            self._warned.add(config.name)
            self._log.warning("model left out", model=config.name, reason=reason)


def _not_ready(entries: list[IndexEntry], served_names: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return the models that are not ready, with the reason. A model that was unloaded on purpose is not among them."""
    return {
        name: "it failed to load" if entry.state == "UNAVAILABLE" else f"it is {entry.state.lower()}"
        for entry in entries
        if entry.state not in ("", "READY") and entry.reason != "unloaded"
        for name in served_names.get(entry.name, (entry.name,))
    }
