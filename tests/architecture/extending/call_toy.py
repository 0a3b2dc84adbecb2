"""Calls the routes of the example `dialect` through a gateway, and writes the answers as JSON to standard output."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import httpx

import gateway
from tests.fakes.scripted_model import ScriptedModel
from tests.fakes.triton import FakeTriton
from tests.wire.gateway_server import run_gateway

TALK = {"engine": "hello", "lines": [{"who": "me", "says": "Hello!"}]}


async def call_toy() -> dict[str, Any]:
    """Return status, type and text of the answers, by a name for each."""

    def describe(response: httpx.Response) -> tuple[int, str, str]:
        return response.status_code, response.headers["content-type"], response.text

    triton = await FakeTriton([ScriptedModel("hello")]).start()
    path, key = "/toy/v1/chat/completions", {"X-Toy-Key": "sk-toy"}
    try:
        async with run_gateway(triton.url, api_keys=["sk-toy"]) as running:
            post, get = running.http.post, running.http.get
            return {
                "whole": describe(await post(path, json=TALK, headers=key)),
                "stream": describe(await post(path, json={**TALK, "live": True}, headers=key)),
                "without a key": describe(await post(path, json=TALK)),
                "unknown path": describe(await get("/toy/nothing")),
                "unknown path of another dialect": describe(await get("/v1/nothing")),
            }
    finally:
        await triton.stop()


if __name__ == "__main__":
    assert Path(gateway.__file__).is_relative_to(sys.argv[1]), gateway.__file__
    json.dump(asyncio.run(call_toy()), sys.stdout)
