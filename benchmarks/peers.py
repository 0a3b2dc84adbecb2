"""Compares Tritonic with other servers of the same model over HTTP: tokens/s, latency and CPU time at 1 and 16 streams.

The servers that run here (see `benchmarks.peer_servers`) are started together and take turns, so that only one works
at a time. `--peer NAME=URL` adds any other server with OpenAI's API; `--peer Tritonic=URL` replaces ours. A client in
this process keeps a fixed number of streams open: the next request follows when one ends. Each request is a chat of 100
words that no other request has. It generates 64 tokens, greedy, and ignores the end of the text if the server supports
that (`ignore_eos`). The rate counts the tokens that arrived within the measured time, by the `usage` of each answer.
The first round is a warm-up. Values are medians over the other rounds; ratios are medians of the rounds' ratios.
"""

import asyncio
import contextlib
import os
import random
import re
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import httpx

from benchmarks.peer_servers import PEERS, PeerOptions, PeerServer, tritonic
from benchmarks.streamed_chat import stream_chat
from benchmarks.tables import Column, Plot, Table, Threshold, Value
from benchmarks.timings import ResponseTiming, Stats, compute_stats, medians

STREAMS = (1, 16)
SECONDS, WARM_UP = 15.0, 4.0
NEW_TOKENS, PROMPT_WORDS = 64, 100
OURS = "Tritonic"
_TEXT = Path(__file__).parent / "data" / "alice.txt"


@dataclass(frozen=True, slots=True)
class RunningPeer:
    """A server that already runs, from the command line."""

    name: str
    url: str
    """Without `/v1`."""
    model: str
    """Empty: the first model that the server lists."""


def parse_peer(text: str) -> RunningPeer:
    """Parse `NAME=URL` or `NAME=MODEL@URL`. Raises `ValueError`."""
    match = re.fullmatch(r"([^=]+)=(?:(.+)@)?(https?://[^@]+)", text.strip())
    if not match:
        raise ValueError(f"{text!r} is neither NAME=URL nor NAME=MODEL@URL")
    name, model, url = match.groups()
    return RunningPeer(name.strip(), url.rstrip("/").removesuffix("/v1"), model or "")


def connect(peer: RunningPeer) -> PeerServer:
    """Return a running peer as a server. Sends `PEER_API_KEY` if it is set. Raises `RuntimeError` without a model."""
    headers = {"Authorization": f"Bearer {key}"} if (key := os.environ.get("PEER_API_KEY")) else {}
    model = peer.model
    if not model:
        try:
            model = httpx.get(f"{peer.url}/v1/models", headers=headers).raise_for_status().json()["data"][0]["id"]
        except (httpx.HTTPError, ValueError, LookupError) as error:
            raise RuntimeError(f"{peer.url}/v1/models names no model: {error}") from error
    return PeerServer(peer.name, peer.url, model, headers=headers)


def prompts(seed: str) -> Iterator[str]:
    """Yield prompts of random words of a book, different for each seed."""
    words, rng = re.findall(r"[a-z]{3,}", _TEXT.read_text().lower()), random.Random(seed)
    while True:
        yield " ".join(rng.choices(words, k=PROMPT_WORDS))


async def run_load(server: PeerServer, texts: Iterator[str], streams: int, seconds: float) -> list[ResponseTiming]:
    """Keep `streams` streams open for `seconds`, and wait for all answers. Raises `RuntimeError` for a failed one."""
    timings: list[ResponseTiming] = []
    end = time.perf_counter() + seconds

    async def one_after_another(session: aiohttp.ClientSession) -> None:
        while time.perf_counter() < end:
            body: dict[str, Any] = {"model": server.model, "messages": [{"role": "user", "content": next(texts)}]}
            body |= {"max_tokens": NEW_TOKENS, "temperature": 0, **server.extra_body}
            answer = await stream_chat(session, server.url, body)
            if answer.error or not answer.arrivals:
                raise RuntimeError(f"{server.name} answered {answer.error or 'without a text'}")
            tokens = answer.tokens or len(answer.arrivals)
            timings.append(ResponseTiming(answer.sent_at, tuple(answer.arrivals), tokens))

    # A connection for each request: llama.cpp's server closes connections after a stream despite `keep-alive`.
    connector, timeout = aiohttp.TCPConnector(limit=0, force_close=True), aiohttp.ClientTimeout(total=600)
    async with aiohttp.ClientSession(headers=server.headers, connector=connector, timeout=timeout) as session:
        await asyncio.gather(*(one_after_another(session) for _ in range(streams)))
    return timings


def measure(server: PeerServer, streams: int, seed: str) -> Stats:
    """Return the statistics of one load.

    For a server that runs here, `cpu` is the CPU time of a token in seconds, and `megabytes` its resident memory.
    """
    before = server.cpu()
    timings = asyncio.run(run_load(server, prompts(seed), streams, WARM_UP + SECONDS))
    stats = compute_stats(timings, WARM_UP, SECONDS, drained=True)
    if server.processes:
        stats["cpu"] = (server.cpu() - before) / sum(timing.tokens for timing in timings)
        stats["megabytes"] = server.megabytes()
    return stats


def busy_while_idle(servers: Sequence[PeerServer], seconds: float = 3.0) -> list[str]:
    """Return a note for each server that uses more than 5 % of a core while idle, which slows the others down."""
    before = [server.cpu() for server in servers]
    time.sleep(seconds)
    shares = [(server.cpu() - start) / seconds for server, start in zip(servers, before, strict=True)]
    return [
        f"{server.name} spends {share:.0%} of a core while it has no requests."
        for server, share in zip(servers, shares, strict=True)
        if share > 0.05
    ]


def run(setting: PeerOptions, rounds: int, peers: Sequence[RunningPeer] = ()) -> list[Table]:
    """Start the local servers, measure, and return the table. A note names each server that cannot be started."""
    loads = [count for count in STREAMS if count <= setting.streams]
    rounds_by_load: dict[int, list[dict[str, Stats]]] = {}
    with contextlib.ExitStack() as stack:
        ours_first = sorted(peers, key=lambda peer: peer.name != OURS)
        servers, notes = [connect(peer) for peer in ours_first], []
        if OURS not in [server.name for server in servers]:
            servers.insert(0, stack.enter_context(tritonic(setting)))
        for name, start in PEERS.items():
            try:
                servers.append(stack.enter_context(start(setting)))
            except (RuntimeError, SystemExit) as reason:
                notes.append(f"{name} was not run: {str(reason).splitlines()[0]}.")
        for server in servers:
            asyncio.run(run_load(server, prompts(f"warm {server.name}"), max(loads), 1.0))
        notes += busy_while_idle(servers)
        for number in range(rounds + 1):
            order = servers[number % len(servers) :] + servers[: number % len(servers)]
            for count in loads:
                results = {server.name: measure(server, count, f"{number} {count} {server.name}") for server in order}
                if number:  # the first round warms up
                    rounds_by_load.setdefault(count, []).append(results)
    versions = {server.name: server.version for server in servers if server.version}
    installed = {server.name: server.installed for server in servers if server.installed}
    return [table(rounds_by_load, [server.name for server in servers], notes, versions, installed)]


def table(
    rounds_by_load: Mapping[int, Sequence[Mapping[str, Stats]]],
    names: Sequence[str],
    notes: Sequence[str] = (),
    versions: Mapping[str, str] | None = None,
    installed: Mapping[str, Mapping[str, str]] | None = None,
) -> Table:
    """Return a table with a row for each load and server.

    `rounds_by_load` has the statistics of each round by server, for each number of streams. Ratios are those of the
    first server, which is ours, to each of the others. `installed` are the packages of the peers' environments, for the
    JSON file.
    """
    rows: list[tuple[Value, ...]] = []
    thresholds = []
    ours = names[0]
    for count, rounds in rounds_by_load.items():
        for name in names:
            stats = medians([results[name] for results in rounds])
            ratios = [results[ours]["tokens/s"] / results[name]["tokens/s"] for results in rounds]
            times = [1000 * stats[key] for key in ("first p50", "first p99", "between p50", "between p99")]
            usage = (1000 * stats["cpu"], stats["megabytes"]) if "cpu" in stats else (None, None)
            comparison = (None, None) if name == ours else (statistics.median(ratios), ratios)
            rows.append((count, name, stats["tokens/s"], *times, *usage, *comparison))
            if name != ours:
                thresholds.append(
                    Threshold(f"tokens/s at {count} streams ÷ {name}", statistics.median(ratios), 1.0, digits=2)
                )
    columns = (
        Column("streams"),
        Column("server"),
        Column("tokens/s"),
        Column("first token p50", "ms"),
        Column("first token p99", "ms"),
        Column("between tokens p50", "ms", 1),
        Column("between tokens p99", "ms", 1),
        Column("CPU per token", "ms", 1),
        Column("memory", "MB"),
        Column(f"{ours} ÷ this, tokens/s", digits=2),
        Column("rounds", digits=2),
    )
    return Table(
        "Servers of one model over HTTP",
        columns,
        rows,
        notes=tuple(notes),
        plots=(
            Plot("streams", ("tokens/s",), by="server", log_x=True),
            Plot("streams", ("first token p50",), by="server", log_x=True, log_y=True),
        ),
        thresholds=tuple(thresholds),
        versions=versions or {},
        details={
            "rounds": {str(count): list(rounds) for count, rounds in rounds_by_load.items()},
            "installed": {name: dict(packages) for name, packages in (installed or {}).items()},
        },
    )
