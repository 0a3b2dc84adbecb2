"""Our gateway and LiteLLM's proxy doing the same work: one core each, the same client, models that cost little.

LiteLLM is installed from PyPI into an environment of its own, in the cache folder, and stands in front of an
OpenAI-compatible stub; the gateway stands in front of a scripted Triton that says the same. Each proxy is one process
on the first core; the models and the client, which are not measured, share the others. Round by round both take turns.
Ratios are medians of the rounds' ratios; CPU time is that of the proxy's processes, over all rounds.

LiteLLM is set up as its documentation advises for production where that makes it faster: one worker for one core, logs
of errors alone, no database, no callbacks, no cost map from the network, `LITELLM_MODE=PRODUCTION`, uvicorn with uvloop
and with httptools, which its own requirements leave out. (Granian, with which it also runs, cost as much CPU time.)
Neither of the two asks for keys.

*Added* is what a client waits for its first token beyond what a client of the same model waits without the proxy, while
each stream gets a token every 20 ms.
"""

import asyncio
import contextlib
import os
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import gateway_overhead
from benchmarks.peer_programs import PyPIProgram, cpu_seconds, rss_megabytes, running_process, wait_until_ready
from benchmarks.scripted_triton import MODEL
from benchmarks.tables import Column, Plot, Table, Threshold, Value
from benchmarks.timed_streams import StreamTimings, chat_body, run_streams
from benchmarks.timings import percentile
from tritonic.ports import free_ports

LITELLM = PyPIProgram("litellm[proxy]", "1.106.2", extra_requirements=("httptools==0.9.0",))
PACED = "paced"
CONCURRENCIES = (1, 16, 64)
TOKENS, PACED_TOKENS = 64, 16
NUM_REQUESTS = {1: 200, 16: 400, 64: 400}
"""Requests without streaming, by how many are open at once."""
NUM_STREAMS = {1: 32, 16: 64, 64: 128}
NUM_PACED_STREAMS = {1: 12, 16: 64, 64: 128}
"""Streams at a pace."""
OURS, THEIRS = "Tritonic", "LiteLLM"
_CONFIG = """\
model_list:
  - model_name: {model}
    litellm_params: {{model: openai/{model}, api_base: "{url}/v1", api_key: none}}
  - model_name: {paced}
    litellm_params: {{model: openai/{paced}, api_base: "{paced_url}/v1", api_key: none}}
litellm_settings: {{telemetry: false, set_verbose: false}}
"""
_ENVIRONMENT = {
    "LITELLM_LOG": "ERROR",
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
    "NO_PROXY": "*",
}


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy in front of a model."""

    url: str
    cpu: Callable[[], float]
    """Seconds of CPU time so far."""
    megabytes: Callable[[], float]


@dataclass(frozen=True, slots=True)
class LiteLLM:
    """The proxy, and what stands behind it."""

    way: Proxy
    paced_url: str
    """The stub that answers at a pace, without the proxy."""


@dataclass(slots=True)
class ProxyLoad:
    """One kind of load on one proxy, over the rounds."""

    rates: list[float] = field(default_factory=list)
    """Requests/s or tokens/s."""
    cpu: float = 0.0
    units: int = 0
    """What the rates count, over all rounds."""
    megabytes: float = 0.0

    @property
    def cpu_each(self) -> float:
        """Seconds of CPU time for each request, or token."""
        return self.cpu / self.units


Loads = dict[int, dict[str, ProxyLoad]]
"""By how many are open at once, and by proxy."""
Added = dict[int, dict[str, list[tuple[float, float]]]]
"""Likewise, of each round the p50 and p99 of what was added, in seconds."""


@contextlib.contextmanager
def litellm(cache: Path, folder: Path) -> Iterator[LiteLLM]:
    """LiteLLM's proxy on the first core, in front of stubs on the others."""
    first, *others = sorted(os.sched_getaffinity(0))
    rest = set(others) or {first}
    commands = LITELLM.installed(cache)
    port, *stubs = free_ports(3)
    urls = [f"http://127.0.0.1:{each}" for each in stubs]
    config = folder / "litellm.yaml"
    config.write_text(_CONFIG.format(model=MODEL, url=urls[0], paced=PACED, paced_url=urls[1]))
    command: list[str | Path] = [commands / "litellm", "--config", config, "--host", "127.0.0.1", "--port", str(port)]
    with contextlib.ExitStack() as stack:
        for stub, every in zip(stubs, (0.0, gateway_overhead.TOKEN_INTERVAL), strict=True):
            log = folder / f"stub-{every}.log"
            behind = [sys.executable, "-m", "benchmarks.openai_stub", "--port", str(stub), "--every", str(every)]
            process = stack.enter_context(running_process(behind, log, rest))
            wait_until_ready(f"http://127.0.0.1:{stub}/v1/models", process, log)
        log = folder / "litellm.log"
        process = stack.enter_context(running_process([*command, "--num_workers", "1"], log, {first}, _ENVIRONMENT))
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(f"{url}/health/liveliness", process, log)
        yield LiteLLM(Proxy(url, lambda: cpu_seconds(process), lambda: rss_megabytes(process)), urls[1])


def run(cache: Path, folder: Path, rounds: int) -> list[Table]:
    """Start both, measure, and return the tables. Raises `SystemExit` where answers are missing."""
    whole: Loads = {count: {OURS: ProxyLoad(), THEIRS: ProxyLoad()} for count in CONCURRENCIES}
    streamed: Loads = {count: {OURS: ProxyLoad(), THEIRS: ProxyLoad()} for count in CONCURRENCIES}
    added: Added = {count: {OURS: [], THEIRS: []} for count in CONCURRENCIES}
    with litellm(cache, folder) as theirs:
        with gateway_overhead.run_gateway() as ours:
            ways = {OURS: Proxy(ours.url, ours.seconds, ours.megabytes), THEIRS: theirs.way}
            for number in range(rounds + 1):
                for name in _order(number):
                    for count in CONCURRENCIES:
                        _load(ways[name], whole[count][name], 1, count, NUM_REQUESTS[count], number)
                        _load(ways[name], streamed[count][name], TOKENS, count, NUM_STREAMS[count], number)
        with gateway_overhead.run_gateway(gateway_overhead.TOKEN_INTERVAL) as slow:
            for number in range(rounds + 1):
                for name in _order(number):
                    for count in CONCURRENCIES:
                        found = _ours_added(slow, count) if name == OURS else _theirs_added(theirs, count)
                        if number:
                            added[count][name].append(found)
    return tables(whole, streamed, added, LITELLM.contents(cache))


def _order(number: int) -> Sequence[str]:
    return (OURS, THEIRS)[:: 1 if number % 2 else -1]


def _load(way: Proxy, load: ProxyLoad, tokens: int, count: int, requests: int, number: int) -> None:
    """Ask; the first round only warms up."""
    before = way.cpu()
    seen = _flow(way.url, MODEL, tokens, count, requests, stream=tokens > 1)
    if number:
        load.rates.append(seen.tokens / seen.seconds)
        load.cpu += way.cpu() - before
        load.units += seen.tokens
        load.megabytes = max(load.megabytes, way.megabytes())


def _flow(url: str, model: str, tokens: int, count: int, requests: int, *, stream: bool = True) -> StreamTimings:
    seen = asyncio.run(run_streams(url, chat_body(model, tokens, stream=stream), count, requests))
    if seen.errors or seen.tokens != requests * tokens:
        raise SystemExit(f"{seen.tokens} of {requests * tokens} tokens came from {url}: {seen.errors[:3]}")
    return seen


def _ours_added(to: gateway_overhead.RunningGateway, count: int) -> tuple[float, float]:
    base = gateway_overhead.first_tokens_over_grpc(to.triton, count, PACED_TOKENS, NUM_PACED_STREAMS[count])
    return _beyond(_flow(to.url, MODEL, PACED_TOKENS, count, NUM_PACED_STREAMS[count]).first_token_seconds, base)


def _theirs_added(to: LiteLLM, count: int) -> tuple[float, float]:
    base = _flow(to.paced_url, PACED, PACED_TOKENS, count, NUM_PACED_STREAMS[count]).first_token_seconds
    return _beyond(_flow(to.way.url, PACED, PACED_TOKENS, count, NUM_PACED_STREAMS[count]).first_token_seconds, base)


def _beyond(first: Sequence[float], base: Sequence[float]) -> tuple[float, float]:
    p50, p99 = (percentile(first, share) - percentile(base, share) for share in (0.5, 0.99))
    return p50, p99


def tables(whole: Loads, streamed: Loads, added: Added, installed: Mapping[str, str]) -> list[Table]:
    """Write down what was found; `installed` are the packages of LiteLLM's environment, for JSON."""
    title = "Tritonic's gateway and LiteLLM's proxy, one core each"
    made = [
        _loads(f"{title}: answers without streaming", whole, "requests/s", "CPU per request", "ms", 1e3),
        _loads(f"{title}: streams", streamed, "tokens/s", "CPU per token", "µs", 1e6),
    ]
    rows: list[tuple[Value, ...]] = []
    for count, ways in added.items():
        medians = [statistics.median(each[place] for each in ways[name]) for place in (0, 1) for name in (OURS, THEIRS)]
        rows.append((count, *(1000 * value for value in medians)))
    columns = [Column(f"{name}, {share}", "ms", 1) for share in ("p50", "p99") for name in (OURS, THEIRS)]
    made.append(
        Table(
            f"{title}: added time to the first token, a token every {1000 * gateway_overhead.TOKEN_INTERVAL:.0f} ms",
            (Column("at once"), *columns),
            rows,
            plots=(Plot("at once", tuple(column.name for column in columns[:2]), log_x=True, log_y=True),),
            versions={"LiteLLM": LITELLM.version},
            details={
                "rounds": {str(count): ways for count, ways in added.items()},
                "installed": {THEIRS: dict(installed)},
            },
        )
    )
    return made


def _loads(title: str, loads: Loads, rate: str, cpu: str, unit: str, size: float) -> Table:
    rows: list[tuple[Value, ...]] = []
    bars = []
    for count, ways in loads.items():
        ours, theirs = ways[OURS], ways[THEIRS]
        ratios = [a / b for a, b in zip(ours.rates, theirs.rates, strict=True)]
        ratio = statistics.median(ratios)
        rates = [statistics.median(each.rates) for each in (ours, theirs)]
        costs = [size * each.cpu_each for each in (ours, theirs)]
        rows.append((count, *rates, ratio, *costs, costs[1] / costs[0], ours.megabytes, theirs.megabytes, ratios))
        bars.append(Threshold(f"{rate} ÷ LiteLLM's proxy, {count} at once", ratio, 5.0, digits=1))
    columns = (
        Column("at once"),
        Column(OURS, rate),
        Column(THEIRS, rate),
        Column("ratio", digits=1),
        Column(f"{cpu}, {OURS}", unit, 2 if unit == "ms" else 0),
        Column(f"{cpu}, {THEIRS}", unit, 2 if unit == "ms" else 0),
        Column("LiteLLM ÷ Tritonic", digits=1),
        Column(f"memory, {OURS}", "MB"),
        Column(f"memory, {THEIRS}", "MB"),
        Column("rounds", digits=1),
    )
    return Table(
        title,
        columns,
        rows,
        plots=(Plot("at once", (OURS, THEIRS), log_x=True, log_y=True),),
        thresholds=tuple(bars),
        versions={"LiteLLM": LITELLM.version},
        details={"rates": {str(count): _rates(ways) for count, ways in loads.items()}},
    )


def _rates(ways: Mapping[str, ProxyLoad]) -> dict[str, list[float]]:
    return {name: load.rates for name, load in ways.items()}
