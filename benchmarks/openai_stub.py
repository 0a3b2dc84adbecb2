"""An OpenAI-compatible stub server that costs little CPU time, the model behind a measured proxy.

`python -m benchmarks.openai_stub` answers a chat with `max_tokens` tokens. Each token is its send time in nanoseconds
of the system's monotonic clock, as in `benchmarks.scripted_triton`, the stub behind the gateway.
"""

import argparse
import asyncio
import json
import time

from aiohttp import web

MODEL = "scripted"


async def chat(request: web.Request) -> web.StreamResponse:
    """Answer a chat, as JSON or as server-sent events."""
    body = await request.json()
    tokens = int(body.get("max_tokens") or body.get("max_completion_tokens") or 16)
    usage = {"prompt_tokens": 7, "completion_tokens": tokens, "total_tokens": 7 + tokens}
    common = {"id": "chatcmpl-1", "created": 1, "model": MODEL}
    if not body.get("stream"):
        text = "".join(f" {time.monotonic_ns():019d}" for _ in range(tokens))
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "length"}
        return web.json_response({**common, "object": "chat.completion", "choices": [choice], "usage": usage})
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    chunk = {**common, "object": "chat.completion.chunk"}
    first, last = (
        json.dumps(chunk | {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})
        for delta, reason in (({"content": "@"}, None), ({}, "length"))
    )
    before, after = (part.encode() for part in first.split("@"))
    interval = request.app["every"]
    for number in range(tokens):
        await response.write(b"data: %b %019d%b\n\n" % (before, time.monotonic_ns(), after))
        if interval and number < tokens - 1:
            await asyncio.sleep(interval)
        elif number % 16 == 15:
            await asyncio.sleep(0)
    await response.write(b"data: %b\n\ndata: [DONE]\n\n" % last.encode())
    return response


async def models(request: web.Request) -> web.Response:
    """List the one model."""
    return web.json_response({"object": "list", "data": [{"id": MODEL, "object": "model", "created": 1}]})


def main() -> None:
    import uvloop

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=float, default=0.0, help="seconds between two tokens of a stream")
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    app = web.Application()
    app["every"] = arguments.every
    app.add_routes([web.post("/v1/chat/completions", chat), web.get("/v1/models", models)])
    web.run_app(app, host="127.0.0.1", port=arguments.port, print=None, access_log=None, loop=uvloop.new_event_loop())


if __name__ == "__main__":
    main()
