"""Compares chats, embeddings and images through the gateway with perf_analyzer on the same models over gRPC.

Both keep a fixed number of requests in flight for the same time, and take turns; each round starts with the other one.
Both repeat the same requests, which a warm-up round has sent before: perf_analyzer always repeats its requests, and the
engine has a prefix cache. Chats generate 64 tokens, greedy, past the end of the text. Chats over gRPC are rendered by
the model's own template beforehand. Rates count the tokens that arrived within the measured time; a ratio is the median
of the rounds' ratios. The client of the gateway is a Python process on the same cores and takes CPU time from both.
"""

import asyncio
import itertools
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import perf_analyzer, profiles
from benchmarks.deployment import Deployment, deploy
from benchmarks.http_client import HttpClient, ResponseChunk, build_request
from benchmarks.models import EMBEDDING_MODEL, IMAGE_MODEL
from benchmarks.perf_analyzer import NEW_TOKENS, make_prompts, render_prompts
from benchmarks.tables import Column, Plot, Table, Threshold, Value
from benchmarks.timings import ResponseTiming, Stats
from benchmarks.triton_direct import measure_until_enough

WARM_UP = 3.0
TAIL_SECONDS = 8.0
"""Seconds that both continue after the measured time. Streams that run in step end in groups, so tokens are counted as
they arrive, also those of requests that end later. The tail is longer if an answer takes longer than that."""
GRPC_OPTIONS = ("-i", "grpc", "--streaming", "--async", "--max-threads", "4")


@dataclass(frozen=True, slots=True)
class PairedLoad:
    """The same work for both: the tensors of each request, and the HTTP body of the same request."""

    title: str
    unit: str
    model: str
    concurrency: int
    min_ratio: float | None
    """The target of the ratio, if any."""
    path: str
    requests: Sequence[profiles.Request]
    bodies: Sequence[dict[str, Any]]
    seconds: float
    tokens: int = 1
    """Units that one answer counts for."""


def loads(repository: Path, chat: str) -> list[PairedLoad]:
    """Return all loads whose models are in the repository; `chat` is the chat model."""
    paired = [
        _chats(repository / chat, streams, min_ratio, seconds)
        for streams, min_ratio, seconds in ((1, None, 6.0), (16, 0.97, 15.0))
    ]
    texts = [request["text"]["content"][0] for request in profiles.load("embedding").requests]
    for batch_size, concurrency in ((1, 16), (16, 4)):
        groups = [texts[start : start + batch_size] for start in range(0, len(texts), batch_size)]
        title = f"embeddings, {batch_size} text{'s' * (batch_size > 1)} a request"
        requests = [{"text": {"content": group, "shape": [batch_size]}} for group in groups]
        bodies = [{"model": EMBEDDING_MODEL, "input": group, "encoding_format": "base64"} for group in groups]
        paired.append(
            PairedLoad(
                title,
                "texts/s",
                EMBEDDING_MODEL,
                concurrency,
                0.9,
                "/v1/embeddings",
                requests,
                bodies,
                6.0,
                tokens=batch_size,
            )
        )
    image_requests = profiles.load("image").requests
    bodies = [
        {"model": IMAGE_MODEL, "response_format": "b64_json", **{name: value for name, (value,) in request.items()}}
        for request in image_requests
    ]
    paired.append(
        PairedLoad("images", "images/s", IMAGE_MODEL, 4, 0.98, "/v1/images/generations", image_requests, bodies, 12.0)
    )
    return [load for load in paired if (repository / load.model).is_dir()]


def _chats(folder: Path, streams: int, min_ratio: float | None, seconds: float) -> PairedLoad:
    prompts = make_prompts(folder / "1" / "tokenizer.json")
    sampling = {"max_tokens": NEW_TOKENS, "temperature": 0, "ignore_eos": True}
    requests = [
        {"text_input": [text], "sampling_parameters": [json.dumps(sampling)], "stream": [True]}
        for text in render_prompts(folder, prompts)
    ]
    bodies = [
        {"model": folder.name, "messages": [{"role": "user", "content": prompt}], "stream": True, **sampling}
        for prompt in prompts
    ]
    title = f"chats, {streams} stream{'s' * (streams > 1)}"
    path = "/v1/chat/completions"
    return PairedLoad(title, "tokens/s", folder.name, streams, min_ratio, path, requests, bodies, seconds, NEW_TOKENS)


def through_gateway(running: Deployment, load: PairedLoad, seconds: float) -> list[ResponseTiming]:
    """Run the load over HTTP for `seconds`, and return the timings.

    Raises `RuntimeError` for a status other than 200 and for a stream without its end.
    """
    return asyncio.run(_through_gateway(f"{running.gateway_url}{load.path}", load, seconds))


async def _through_gateway(url: str, load: PairedLoad, seconds: float) -> list[ResponseTiming]:
    timings: list[ResponseTiming] = []
    start = time.monotonic()
    messages = [(build_request(url, json.dumps(body).encode()), bool(body.get("stream"))) for body in load.bodies]
    requests = itertools.cycle(messages)

    async def one_after_another() -> None:
        client = await HttpClient.connect(url)
        for message, streamed in requests:
            began, chunks = time.monotonic(), list[ResponseChunk]()
            status = await client.send(message, chunks)
            answer = b"".join(chunk for _, chunk in chunks)
            if status != 200:
                raise RuntimeError(f"{status} {answer[:300]!r}")
            if streamed and not answer.endswith(b"data: [DONE]\n\n"):
                raise RuntimeError(f"A stream ended with {answer[-300:]!r}")
            # Events of one chunk arrived at the same time.
            events = [at / 1e9 for at, chunk in chunks for _ in range(chunk.count(b"data: {"))] if streamed else []
            timings.append(ResponseTiming(began, (*events, time.monotonic()), load.tokens))
            if time.monotonic() - start > seconds:
                return client.close()

    await asyncio.gather(*(one_after_another() for _ in range(load.concurrency)))
    return timings


def over_grpc(
    program: perf_analyzer.Executable, running: Deployment, load: PairedLoad, seconds: float
) -> list[ResponseTiming]:
    """Run the load over gRPC for `seconds`, and return the timings."""
    options = ("-u", running.triton_url, "-m", load.model, *GRPC_OPTIONS)
    return perf_analyzer.measure(program, options, load.requests, load.concurrency, seconds, load.tokens)


def measure(
    paths: Mapping[str, Callable[[float], list[ResponseTiming]]], seconds: float, rounds: int
) -> list[dict[str, Stats]]:
    """Return the statistics of each round, by path (gateway, direct). A warm-up round comes first and is not returned.

    `paths` are functions that run the load for a number of seconds.
    """
    results = []
    for number in range(rounds + 1):
        order = list(paths)[:: -1 if number % 2 else 1]
        stats = {name: measure_until_enough(paths[name], WARM_UP, seconds, TAIL_SECONDS)[1] for name in order}
        results += [stats] if number else []
    return results


def run(repository: Path, model: str, rounds: int, cache: Path, *, quick: bool = False) -> list[Table]:
    """Measure, and return the table. Raises `RuntimeError` if a request fails."""
    program = perf_analyzer.install(cache)
    columns = (
        Column("work"),
        Column("in flight"),
        Column("unit"),
        Column("perf_analyzer", digits=1),
        Column("gateway", digits=1),
        Column("ratio", digits=3),
        Column("target", digits=2),
        Column("rounds", digits=2),
    )
    rows: list[tuple[Value, ...]] = []
    thresholds, details = [], {}
    with deploy(repository, model) as running:
        for load in loads(repository, model):
            if quick and load.min_ratio is None:
                continue
            paths = {"direct": partial(over_grpc, program, running, load)}
            paths["gateway"] = partial(through_gateway, running, load)
            pairs = measure(paths, load.seconds / (2 if quick else 1), rounds)
            ratios = [pair["gateway"]["tokens/s"] / pair["direct"]["tokens/s"] for pair in pairs]
            rates = [statistics.median(pair[path]["tokens/s"] for pair in pairs) for path in paths]
            rows.append(
                (load.title, load.concurrency, load.unit, *rates, statistics.median(ratios), load.min_ratio, ratios)
            )
            details[load.title] = pairs
            if load.min_ratio is not None:
                name = f"gateway ÷ perf_analyzer, {load.title}"
                thresholds.append(Threshold(name, statistics.median(ratios), load.min_ratio))
    return [
        Table(
            "Through the gateway, and perf_analyzer directly to Triton",
            columns,
            rows,
            plots=(Plot("work", ("ratio", "target"), title="Rate through the gateway ÷ perf_analyzer", kind="bars"),),
            thresholds=tuple(thresholds),
            versions={"perf_analyzer": perf_analyzer.VERSION},
            details={"rounds": details},
        )
    ]
