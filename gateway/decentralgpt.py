"""Registers the models of the gateway with a DecentralGPT node (DeepBrainChain's AIComputingNode) on the same machine.

The node announces models to its network, and calls each at the address that it was registered with:
https://github.com/DeepBrainChain/AIComputingNode/blob/main/docs/model_api.md. A registration stays in the node's
configuration until it is removed; the node never checks whether a model still exists.
"""

import asyncio
import ipaddress
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
import structlog

from gateway.models.catalog import Catalog
from gateway.models.servers import Model
from gateway.operations.registry import known_operations
from gateway.settings import Settings
from gateway.worker_context import WorkerContext

if TYPE_CHECKING:
    import aiohttp

_CALL_TIMEOUT_SECONDS = 10.0
"""Timeout of one call, in seconds. The node writes its configuration and informs its network before it answers."""
_SHUTDOWN_TIMEOUT_SECONDS = 4.0
"""Timeout of all calls together when the gateway shuts down, in seconds."""
_MAX_BACKOFF_SECONDS = 60.0


class NodeError(Exception):
    """The node does not respond, or refuses a call. The message is for the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """The registration of one model. `api` is the URL at which the node calls it, `type` the kind of model."""

    model: str
    api: str
    type: int


class NodeRegistrar:
    """Keeps the node's list of this gateway's models up to date. A failure of the node never affects requests."""

    def __init__(self, settings: Settings, catalog: Catalog, worker: WorkerContext | None = None) -> None:
        """`settings.node_url` is the URL of the node's API without the path. Of several workers one calls the node."""
        assert settings.node_url is not None
        self._url = settings.node_url.rstrip("/")
        self._project = settings.project
        self._cid = settings.cid or socket.gethostname()
        self._api_base = api_base(settings)
        self._interval = settings.node_interval
        self._poll_interval = settings.discovery_interval
        self._catalog = catalog
        self._worker = worker or WorkerContext()
        self._confirmed: dict[str, Registration] = {}
        """Registrations that the node has confirmed, by model."""
        self._possibly_registered: set[str] = set()
        """Models that the node may know: their registration was sent, confirmed or not, and not removed since."""
        self._log = structlog.get_logger("gateway.decentralgpt")
        self._last_error = ""

    async def run(self) -> None:
        """Register the models of the catalog, on every change and again at each interval, until cancelled."""
        failures, renewal = 0, 0.0
        while not self._worker.try_lead("node"):
            await asyncio.sleep(self._poll_interval)
        while True:
            try:
                renew = time.monotonic() >= renewal
                await self._sync(renew)
                if renew:
                    renewal = time.monotonic() + self._interval
                wait, failures = self._poll_interval, 0
                self._log_recovery()
            except Exception as error:  # whatever the failure of the node, the next attempt may succeed
                wait, failures = min(_MAX_BACKOFF_SECONDS, 2.0 ** min(failures, 10)), failures + 1
                self._log_failure(error)
            await asyncio.sleep(wait)

    async def unregister_all(self) -> None:
        """Unregister all models that the node may know, concurrently and within 4 seconds."""
        if not self._possibly_registered or not self._worker.is_ending:
            return  # another worker takes the registrations over
        try:
            async with asyncio.timeout(_SHUTDOWN_TIMEOUT_SECONDS):
                async with self._session() as session:
                    calls = [self._unregister(session, name) for name in sorted(self._possibly_registered)]
                    failed = [e for e in await asyncio.gather(*calls, return_exceptions=True) if e is not None]
            if failed:
                self._log.warning("models stay registered", node=self._url, reason=str(failed[0]))
        except TimeoutError:
            self._log.warning(
                "models stay registered", node=self._url, reason=f"no response within {_SHUTDOWN_TIMEOUT_SECONDS:g} s"
            )

    async def _sync(self, renew: bool) -> None:
        """Register new and changed models, with `renew` all, and unregister the others.

        Raises the first failure after all calls were made.
        """
        wanted = {r.model: r for r in map(self._registration, self._catalog.models()) if r is not None}
        new = [r for name, r in wanted.items() if renew or self._confirmed.get(name) != r]
        if not new and not renew and self._possibly_registered <= wanted.keys():
            return
        failures: list[Exception] = []
        async with self._session() as session:
            if renew:
                with suppress(NodeError):  # the list is optional: registrations matter more
                    self._possibly_registered |= await self._fetch_registered(session)
            for name in sorted(self._possibly_registered - wanted.keys()):
                try:
                    await self._unregister(session, name)
                except NodeError as error:
                    failures.append(error)
            for registration in new:
                try:
                    await self._register(session, registration)
                except NodeError as error:
                    failures.append(error)
        if failures:
            raise failures[0]

    def _registration(self, model: Model) -> Registration | None:
        """Return the registration of a model by the first of its operations that nodes call; None where none is.

        A node tells models apart by project, name and cid alone, and sends chats, image generations and image edits
        alike to the one address that it finds. So each model is registered once.
        """
        for operation in known_operations(model.operations):
            if operation.node_type is not None and operation.route is not None:
                return Registration(model=model.name, api=self._api_base + operation.route, type=operation.node_type)
        return None

    async def _fetch_registered(self, session: "aiohttp.ClientSession") -> set[str]:
        """Return the models of this gateway that the node has, including those from before a kill of the gateway."""
        me = await self._request(session, "GET", "/api/v0/id")
        answer = await self._request(session, "POST", "/api/v0/ai/project/peer", {"node_id": me.get("peer_id")})
        try:
            models = (answer["data"] or {}).get(self._project) or []
            return {m["Model"] for m in models if m["CID"] == self._cid and m["API"].startswith(f"{self._api_base}/")}
        except (KeyError, TypeError, AttributeError):
            raise NodeError("the list of models in its response has an unexpected form") from None

    async def _register(self, session: "aiohttp.ClientSession", registration: Registration) -> None:
        self._possibly_registered.add(registration.model)
        fields = {"model": registration.model, "api": registration.api, "type": registration.type}
        await self._call(session, "register", fields)
        write = self._log.debug if self._confirmed.get(registration.model) == registration else self._log.info
        self._confirmed[registration.model] = registration
        write("registered", node=self._url, **fields)

    async def _unregister(self, session: "aiohttp.ClientSession", name: str) -> None:
        await self._call(session, "unregister", {"model": name})
        self._confirmed.pop(name, None)
        self._possibly_registered.discard(name)
        self._log.info("unregistered", node=self._url, model=name)

    async def _call(self, session: "aiohttp.ClientSession", verb: str, body: Mapping[str, Any]) -> None:
        """Call `verb` (register or unregister) for one model. Raises `NodeError`."""
        fields = {"project": self._project, **body, "cid": self._cid}
        await self._request(session, "POST", f"/api/v0/ai/model/{verb}", fields)

    async def _request(
        self, session: "aiohttp.ClientSession", method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return the JSON object that the node answers. Raises `NodeError` for a failure, or any other answer."""
        from aiohttp import ClientError

        data = None if body is None else orjson.dumps(body)
        try:
            async with asyncio.timeout(_CALL_TIMEOUT_SECONDS):
                async with session.request(method, self._url + path, data=data, allow_redirects=False) as response:
                    answer = await response.read()
        except TimeoutError:
            raise NodeError(f"{path}: no response within {_CALL_TIMEOUT_SECONDS:g} seconds") from None
        except (ClientError, OSError) as error:
            raise NodeError(f"the node cannot be reached: {error}") from None
        try:
            result = orjson.loads(answer)
        except orjson.JSONDecodeError:
            result = None
        if not isinstance(result, dict):
            raise NodeError(f"{path}: the response with the HTTP status {response.status} is not a JSON object")
        if response.status != 200 or result.get("code", 0) != 0:
            subject = f" '{body['model'][:200]}'" if body and "model" in body else ""
            raise NodeError(f"{path}{subject}: refused with the code {result.get('code')}: {result.get('message')}")
        return result

    def _session(self) -> "aiohttp.ClientSession":
        import aiohttp  # costs 20 MB, which a gateway without a node is spared

        return aiohttp.ClientSession(
            headers={"Content-Type": "application/json"},
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),  # each call has a timeout of its own
            trust_env=False,
        )

    def _log_failure(self, error: Exception) -> None:
        """Log a failure as a warning; a repetition at debug level."""
        write = self._log.debug if str(error) == self._last_error else self._log.warning
        self._last_error = str(error)
        write(
            "registration with the node failed",
            node=self._url,
            reason=str(error)[:500],
            exc_info=not isinstance(error, NodeError),
        )

    def _log_recovery(self) -> None:
        if self._last_error:
            self._last_error = ""
            self._log.info("registration with the node works again", node=self._url)


def api_base(settings: Settings) -> str:
    """Return the URL at which the node reaches this gateway, without a slash at the end."""
    if settings.node_api_url is not None:
        return settings.node_api_url.rstrip("/")
    host = settings.host
    with suppress(ValueError):
        address = ipaddress.ip_address(host)
        if address.is_unspecified:
            address = ipaddress.ip_address("::1" if address.version == 6 else "127.0.0.1")
        host = f"[{address}]" if address.version == 6 else str(address)
    return f"http://{host}:{settings.port}"
