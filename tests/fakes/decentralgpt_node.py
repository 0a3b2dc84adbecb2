"""A DecentralGPT node as far as a gateway sees it: what it registers, what it refuses, and how it calls models.

After the source of DeepBrainChain/AIComputingNode: pkg/types/ai.go (what is checked), pkg/model/types.go (how models
are told apart and chosen), pkg/model/model.go and pkg/serve/model.go (how they are called, and how answers are read).
"""

import asyncio
import ipaddress
import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web

PARAM, PARSE = 1001, 1002
PEER = "16Uiu2HAm5cygUrKCBxtNSMKKvgdr1saPM6XWcgnPyTvK4sdrARGL"


class Rejected(Exception):
    """Says why; becomes the code 1001."""


@dataclass(slots=True)
class ComputingNode:
    """`registered` is what the node would call; `calls` is every (verb, body) it was sent, refused or not.

    `failing` answers everything with 500, `frozen` nothing at all, and `foreign` a page that is no node's.
    """

    registered: dict[tuple[str, str, str], dict[str, Any]] = field(default_factory=dict)
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    failing: bool = False
    frozen: bool = False
    foreign: bool = False
    port: int = 0
    _runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> "ComputingNode":
        application = web.Application()
        application.router.add_post("/api/v0/ai/model/{verb:register|unregister}", self._answer)
        application.router.add_get("/api/v0/id", self._identify)
        application.router.add_post("/api/v0/ai/project/peer", self._list)
        self._runner = web.AppRunner(application, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def until(self, check: Any, seconds: float = 5.0) -> None:
        """Wait until `check(self)` is true."""
        async with asyncio.timeout(seconds):
            while not check(self):
                await asyncio.sleep(0.01)

    def models(self) -> dict[str, tuple[int, str]]:
        """Of every registered model its type and the path of its address."""
        return {m["model"]: (m["type"], urlsplit(m["api"]).path) for m in self.registered.values()}

    async def _answer(self, request: web.Request) -> web.Response:
        while self.frozen:
            await asyncio.sleep(0.01)
        verb, text = request.match_info["verb"], await request.text()
        try:
            body = json.loads(text)
            assert isinstance(body, dict)
            assert all(isinstance(body.get(name, ""), str) for name in ("project", "model", "api", "cid"))
            assert type(body.get("type", 0)) is int
        except (ValueError, AssertionError):
            return web.json_response({"code": PARSE, "message": "Parsing error"}, status=400)
        self.calls.append((verb, body))
        if trouble := await self._troubled():
            return trouble
        try:
            known = (self._register if verb == "register" else self._unregister)(body)
        except Rejected as why:
            return web.json_response({"code": PARAM, "message": str(why)}, status=400)
        return web.json_response({"code": 0, "message": "ok" if known else "not existed"})

    async def _identify(self, request: web.Request) -> web.Response:
        return await self._troubled() or web.json_response({"peer_id": PEER, "protocol_version": "v1"})

    async def _list(self, request: web.Request) -> web.Response:
        """Its own models, with Go's names for the fields."""
        if trouble := await self._troubled():
            return trouble
        if (await request.json()).get("node_id") != PEER:
            return web.json_response({"code": PARAM, "message": "empty node_id"}, status=400)
        projects: dict[str, list[dict[str, Any]]] = {}
        for (project, model, cid), registration in self.registered.items():
            known = {"Model": model, "API": registration["api"], "Type": registration["type"], "CID": cid, "Idle": 0}
            projects.setdefault(project, []).append(known)
        return web.json_response({"data": projects})

    async def _troubled(self) -> web.Response | None:
        while self.frozen:
            await asyncio.sleep(0.01)
        if self.foreign:
            return web.Response(text="<html>It works!</html>", content_type="text/html")
        return web.json_response({"code": 5000, "message": "internal error"}, status=500) if self.failing else None

    def _register(self, body: dict[str, Any]) -> bool:
        for name, called in (("project", "project name"), ("model", "model name"), ("api", "model api")):
            if not body.get(name):
                raise Rejected(f"{called} can not be empty")
        verify_local(body["api"])
        if not body.get("cid"):
            raise Rejected("cid represents the docker container id, which can not be empty")
        self.registered[body["project"], body["model"], body["cid"]] = {"type": 0, **body}
        return True

    def _unregister(self, body: dict[str, Any]) -> bool:
        for name in ("project", "model"):
            if not body.get(name):
                raise Rejected(f"{name} name can not be empty")
        return self.registered.pop((body["project"], body["model"], body.get("cid", "")), None) is not None

    def _find(self, project: str, model: str) -> dict[str, Any]:
        """Whichever is registered by that name, whatever its type."""
        return next(m for (p, name, _), m in self.registered.items() if (p, name) == (project, model))

    async def chat(self, project: str, model: str, messages: list[dict[str, Any]], **more: Any) -> Any:
        """Ask a model as for somebody in the network, and return what that one gets: JSON, or the bytes of a stream."""
        body = {"model": model, "messages": messages, "stream": False, "wallet": "w", "signature": "s", "hash": "h"}
        answer = await self._post(self._find(project, model)["api"], json=body | more)
        if isinstance(answer, dict):
            for choice in answer.get("choices") or ():
                assert type(choice["index"]) is int and type(choice["message"]["role"]) is str
                assert type(choice["message"]["content"]) in (str, type(None)), choice
            assert all(type(count) is int for count in answer.get("usage", {}).values())
        return answer

    async def draw(self, project: str, model: str, prompt: str, **more: Any) -> Any:
        """The same for pictures. What nobody asked for is sent as the zero of its type, as Go does."""
        zeros = {"n": 0, "size": "", "width": 0, "height": 0, "response_format": ""}
        body = {"model": model, "prompt": prompt, **zeros, **more}
        return _pictures(await self._post(self._find(project, model)["api"], json=body))

    async def edit(self, project: str, model: str, files: dict[str, bytes], **fields: str) -> Any:
        """The same for edits, which travel as forms."""
        form = aiohttp.FormData()
        for name, data in files.items():
            form.add_field(name, data, filename=f"{name}.png")
        for name, value in {"model": model, **fields}.items():
            form.add_field(name, value)
        return _pictures(await self._post(self._find(project, model)["api"], data=form))

    async def _post(self, api: str, **body: Any) -> Any:
        async with aiohttp.ClientSession() as session, session.post(api, **body) as response:
            data = await response.read()
            # Compared letter for letter; anything else is handed on as it is, as a stream.
            if response.headers["Content-Type"] != "application/json":
                return data
        answer = json.loads(data)
        assert type(answer.get("code", 0)) is int and type(answer.get("message", "")) is str
        assert type(answer.get("created", 0)) is int
        return answer


def verify_local(api: str) -> None:
    """`VerifyUrlAndLocalHost`. The interfaces of this node are loopback alone."""
    host = urlsplit(api).hostname or ""
    if host == "localhost":
        return
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise Rejected("parse ip from model api failed") from None
    if str(address) not in ("127.0.0.1", "::1"):
        raise Rejected("the url and the node are not on the same machine")


def _pictures(answer: Any) -> Any:
    for picture in answer.get("data") or ():
        assert picture.get("url") or picture.get("b64_json"), picture
        assert all(type(picture.get(name, "")) is str for name in ("url", "b64_json", "revised_prompt")), picture
    return answer
