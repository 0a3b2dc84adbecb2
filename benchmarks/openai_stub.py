"""An OpenAI-compatible server that costs little: what proxies are measured in front of.

`python -m benchmarks.openai_stub` answers chats with as many tokens as `max_tokens`, each a time of the system's
monotonic clock in nanoseconds, as `benchmarks.scripted_triton` does for a gateway to Triton.
"""

import argparse
import asyncio
import json
import time

from aiohttp import web

MODEL = "scripted"


async def chat(request: web.Request) -> web.StreamResponse:
    """Answer whole or as server-sent events."""
    asked = await request.json()
    tokens = int(asked.get("max_tokens") or asked.get("max_completion_tokens") or 16)
    usage = {"prompt_tokens": 7, "completion_tokens": tokens, "total_tokens": 7 + tokens}
    head = {"id": "chatcmpl-1", "created": 1, "model": MODEL}
    if not asked.get("stream"):
        text = "".join(f" {time.monotonic_ns():019d}" for _ in range(tokens))
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "length"}
        return web.json_response({**head, "object": "chat.completion", "choices": [choice], "usage": usage})
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    chunk = {**head, "object": "chat.completion.chunk"}
    first, last = (
        json.dumps(chunk | {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})
        for delta, reason in (({"content": "@"}, None), ({}, "length"))
    )
    before, after = (part.encode() for part in first.split("@"))
    every = request.app["every"]
    for number in range(tokens):
        await response.write(b"data: %b %019d%b\n\n" % (before, time.monotonic_ns(), after))
        if every and number < tokens - 1:
            await asyncio.sleep(every)
        elif number % 16 == 15:
            await asyncio.sleep(0)
    await response.write(b"data: %b\n\ndata: [DONE]\n\n" % last.encode())
    return response


async def models(request: web.Request) -> web.Response:
    """The one there is."""
    return web.json_response({"object": "list", "data": [{"id": MODEL, "object": "model", "created": 1}]})


def main() -> None:
    import uvloop

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=float, default=0.0)
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    app = web.Application()
    app["every"] = arguments.every
    app.add_routes([web.post("/v1/chat/completions", chat), web.get("/v1/models", models)])
    web.run_app(app, host="127.0.0.1", port=arguments.port, print=None, access_log=None, loop=uvloop.new_event_loop())


if __name__ == "__main__":
    main()
