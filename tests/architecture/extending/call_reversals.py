"""Calls the routes of the example `operation` through a gateway, and writes the answers as JSON to standard output."""

import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import gateway
from tests.fakes.triton_backend import BackendModel, BackendTriton
from tests.wire.gateway_server import RunningGateway, run_gateway

BODY = {"model": "reverse", "text": "one two three"}


async def call_reversals(folder: Path, state: Path) -> dict[str, Any]:
    """Return the answers by a name for each. `folder` is the folder of the model."""
    triton = await BackendTriton(BackendModel(folder)).start()
    try:
        async with run_gateway(triton.url, state=state) as running:
            answers: dict[str, Any] = {"model": (await running.http.get("/v1/models/reverse")).json()}
            answers["whole"] = await _post(running, BODY)
            answers["tensors"] = {name: list(map(bytes.decode, v)) for name, v in triton.calls[-1].tensors.items()}
            answers["refused by the backend"] = await _post(running, {**BODY, "text": " "})
            answers["refused by the catalog"] = (
                await running.http.post("/v1/embeddings", json={"model": "reverse", "input": "one"})
            ).json()
            (_, created) = await _post(running, {**BODY, "background": True})
            finished = await running.until(f"/v1/reversals/{created['id']}", lambda r: r.json()["url"])
            answers["task"] = finished.json()
            document = (await running.http.get("/openapi.json")).json()
            answers["documented"] = sorted(path for path in document["paths"] if "reversals" in path)
            answers["metrics"] = sorted(name for name in await running.metrics() if 'model="reverse"' in name)
        # The next gateway has the task and its output.
        async with run_gateway(triton.url, state=state) as running:
            answers["task later"] = (await running.http.get(f"/v1/reversals/{created['id']}")).json()
            stored = await running.http.get("/files/" + answers["task later"]["url"].rpartition("/files/")[2])
            answers["output"] = (stored.headers["content-type"], stored.text)
        return answers
    finally:
        await triton.stop()


async def _post(running: RunningGateway, body: dict[str, Any]) -> tuple[int, Any]:
    response = await running.http.post("/v1/reversals", json=body)
    return response.status_code, response.json()


if __name__ == "__main__":
    tree = Path(sys.argv[1])
    assert Path(gateway.__file__).is_relative_to(tree), gateway.__file__
    with tempfile.TemporaryDirectory() as state:
        json.dump(asyncio.run(call_reversals(tree / "model_repository" / "reverse", Path(state))), sys.stdout)
