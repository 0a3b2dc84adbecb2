"""Tritonic next to other servers of the same model, over HTTP: tokens/s, times and CPU time at 1 and 16 streams.

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
    found = re.fullmatch(r"([^=]+)=(?:(.+)@)?(https?://[^@]+)", text.strip())
    if not found:
        raise ValueError(f"{text!r} is neither NAME=URL nor NAME=MODEL@URL")
    name, model, url = found.groups()
    return RunningPeer(name.strip(), url.rstrip("/").removesuffix("/v1"), model or "")


def connect(to: RunningPeer) -> PeerServer:
    """Return a running peer as a server. Sends `PEER_API_KEY` if it is set. Raises `RuntimeError` without a model."""
    headers = {"Authorization": f"Bearer {key}"} if (key := os.environ.get("PEER_API_KEY")) else {}
    model = to.model
    if not model:
        try:
            model = httpx.get(f"{to.url}/v1/models", headers=headers).raise_for_status().json()["data"][0]["id"]
        except (httpx.HTTPError, ValueError, LookupError) as error:
            raise RuntimeError(f"{to.url}/v1/models names no model: {error}") from error
    return PeerServer(to.name, to.url, model, headers=headers)


def prompts(seed: str) -> Iterator[str]:
    """Yield prompts of random words of a book, different for each seed."""
    words, chance = re.findall(r"[a-z]{3,}", _TEXT.read_text().lower()), random.Random(seed)
    while True:
        yield " ".join(chance.choices(words, k=PROMPT_WORDS))


async def run_load(to: PeerServer, texts: Iterator[str], streams: int, seconds: float) -> list[ResponseTiming]:
    """Keep `streams` streams open for `seconds`, and wait for all answers. Raises `RuntimeError` for a failed one."""
    found: list[ResponseTiming] = []
    end = time.perf_counter() + seconds

    async def one_after_another(session: aiohttp.ClientSession) -> None:
        while time.perf_counter() < end:
            body: dict[str, Any] = {"model": to.model, "messages": [{"role": "user", "content": next(texts)}]}
            body |= {"max_tokens": NEW_TOKENS, "temperature": 0, **to.extra_body}
            answer = await stream_chat(session, to.url, body)
            if answer.error or not answer.arrivals:
                raise RuntimeError(f"{to.name} answered {answer.error or 'without a text'}")
            found.append(ResponseTiming(answer.sent_at, tuple(answer.arrivals), answer.tokens or len(answer.arrivals)))

    # A connection for each request: after a stream, llama.cpp's server closes one that it promised to keep.
    connector, timeout = aiohttp.TCPConnector(limit=0, force_close=True), aiohttp.ClientTimeout(total=600)
    async with aiohttp.ClientSession(headers=to.headers, connector=connector, timeout=timeout) as session:
        await asyncio.gather(*(one_after_another(session) for _ in range(streams)))
    return found


def measure(to: PeerServer, streams: int, seed: str) -> Stats:
    """Return the statistics of one load. For local processes, `cpu` is the CPU time of a token in seconds."""
    before = to.cpu()
    timings = asyncio.run(run_load(to, prompts(seed), streams, WARM_UP + SECONDS))
    found = compute_stats(timings, WARM_UP, SECONDS, drained=True)
    if to.processes:
        found["cpu"] = (to.cpu() - before) / sum(timing.tokens for timing in timings)
        found["megabytes"] = to.megabytes()
    return found


def busy_while_idle(servers: Sequence[PeerServer], seconds: float = 3.0) -> list[str]:
    """Return a note for each server that uses more than 5 % of a core while idle: the others lack that time."""
    before = [server.cpu() for server in servers]
    time.sleep(seconds)
    shares = [(server.cpu() - start) / seconds for server, start in zip(servers, before, strict=True)]
    return [
        f"{server.name} spends {share:.0%} of a core while nobody asks it."
        for server, share in zip(servers, shares, strict=True)
        if share > 0.05
    ]


def run(setting: PeerOptions, rounds: int, peers: Sequence[RunningPeer] = ()) -> list[Table]:
    """Start the local servers, measure, and return the table. A note names each server that cannot be started."""
    loads = [count for count in STREAMS if count <= setting.streams]
    rows: dict[int, list[dict[str, Stats]]] = {}
    with contextlib.ExitStack() as stack:
        ours_first = sorted(peers, key=lambda each: each.name != OURS)
        servers, notes = [connect(each) for each in ours_first], []
        if OURS not in [each.name for each in servers]:
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
                each = {to.name: measure(to, count, f"{number} {count} {to.name}") for to in order}
                if number:  # the first round warms up
                    rows.setdefault(count, []).append(each)
    versions = {server.name: server.version for server in servers if server.version}
    installed = {server.name: server.installed for server in servers if server.installed}
    return [table(rows, [server.name for server in servers], notes, versions, installed)]


def table(
    rows: Mapping[int, Sequence[Mapping[str, Stats]]],
    names: Sequence[str],
    notes: Sequence[str] = (),
    versions: Mapping[str, str] | None = None,
    installed: Mapping[str, Mapping[str, str]] | None = None,
) -> Table:
    """Return a row for each load and server. Ratios are the first server, which is ours, to each of the others.

    `installed` are the packages of the peers' environments, for JSON.
    """
    cells: list[tuple[Value, ...]] = []
    bars = []
    ours = names[0]
    for count, rounds in rows.items():
        for name in names:
            found = medians([each[name] for each in rounds])
            ratios = [each[ours]["tokens/s"] / each[name]["tokens/s"] for each in rounds]
            times = [1000 * found[key] for key in ("first p50", "first p99", "between p50", "between p99")]
            rest = (1000 * found["cpu"], found["megabytes"]) if "cpu" in found else (None, None)
            over = (None, None) if name == ours else (statistics.median(ratios), ratios)
            cells.append((count, name, found["tokens/s"], *times, *rest, *over))
            if name != ours:
                bars.append(
                    Threshold(f"tokens/s at {count} streams ÷ {name}", statistics.median(ratios), 1.0, digits=2)
                )
    columns = (
        Column("streams"),
        Column("server"),
        Column("tokens/s"),
        Column("first token p50", "ms"),
        Column("p99", "ms"),
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
        cells,
        notes=tuple(notes),
        plots=(
            Plot("streams", ("tokens/s",), by="server", log_x=True),
            Plot("streams", ("first token p50",), by="server", log_x=True, log_y=True),
        ),
        thresholds=tuple(bars),
        versions=versions or {},
        details={
            "rounds": {str(count): list(rounds) for count, rounds in rows.items()},
            "installed": {name: dict(packages) for name, packages in (installed or {}).items()},
        },
    )
