"""Compares the gateway with LiteLLM's proxy on the same work: one core each, the same client, models that cost little.

LiteLLM is installed from PyPI into an environment of its own in the cache folder. It forwards to an OpenAI-compatible
stub; the gateway forwards to a scripted Triton that generates the same tokens. Each proxy is one process on the first
core. The models and the client, which are not measured, share the other cores. The proxies take turns in each round.
Ratios are medians of the rounds' ratios; CPU time is that of the proxy's processes over all rounds.

LiteLLM is set up as its documentation advises for production where that makes it faster: one worker for one core, error
logs only, no database, no callbacks, no cost map from the network, `LITELLM_MODE=PRODUCTION`, uvicorn with uvloop, and
httptools, which its own requirements leave out. (Granian, its other server, cost as much CPU time.) Neither proxy
requires keys.

*Added time* is the client's time to first token through the proxy minus that of a client that calls the model without
the proxy, while each stream gets a token every 20 ms.
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
"""Number of requests without streaming in a round, by the number in flight."""
NUM_STREAMS = {1: 32, 16: 64, 64: 128}
"""Number of saturated streams in a round, by the number in flight."""
NUM_PACED_STREAMS = {1: 12, 16: 64, 64: 128}
"""Number of paced streams in a round, by the number in flight."""
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
    """A running proxy in front of a model."""

    url: str
    cpu: Callable[[], float]
    """Returns the CPU seconds of its processes so far."""
    megabytes: Callable[[], float]
    """Returns the resident memory of its processes."""


@dataclass(frozen=True, slots=True)
class LiteLLM:
    """LiteLLM's proxy and the stub of a paced model."""

    proxy: Proxy
    paced_url: str
    """URL of the stub that sends tokens at a fixed interval, without the proxy."""


@dataclass(slots=True)
class ProxyLoad:
    """The results of one load on one proxy."""

    rates: list[float] = field(default_factory=list)
    """Requests/s or tokens/s of each round."""
    cpu: float = 0.0
    """CPU seconds over all rounds."""
    units: int = 0
    """Requests or tokens over all rounds."""
    megabytes: float = 0.0

    @property
    def cpu_each(self) -> float:
        """CPU seconds per request or token."""
        return self.cpu / self.units


Loads = dict[int, dict[str, ProxyLoad]]
"""Results by the number of requests in flight and by proxy."""
Added = dict[int, dict[str, list[tuple[float, float]]]]
"""The p50 and p99 of the added time in each round, in seconds, by the number in flight and by proxy."""


@contextlib.contextmanager
def litellm(cache: Path, folder: Path) -> Iterator[LiteLLM]:
    """Run LiteLLM's proxy on the first core, and the stubs behind it on the others."""
    first, *others = sorted(os.sched_getaffinity(0))
    rest = set(others) or {first}
    commands = LITELLM.installed(cache)
    port, *stubs = free_ports(3)
    urls = [f"http://127.0.0.1:{stub}" for stub in stubs]
    config = folder / "litellm.yaml"
    config.write_text(_CONFIG.format(model=MODEL, url=urls[0], paced=PACED, paced_url=urls[1]))
    command: list[str | Path] = [commands / "litellm", "--config", config, "--host", "127.0.0.1", "--port", str(port)]
    with contextlib.ExitStack() as stack:
        for stub, every in zip(stubs, (0.0, gateway_overhead.TOKEN_INTERVAL), strict=True):
            log = folder / f"stub-{every}.log"
            stub_command = [sys.executable, "-m", "benchmarks.openai_stub", "--port", str(stub), "--every", str(every)]
            process = stack.enter_context(running_process(stub_command, log, rest))
            wait_until_ready(f"http://127.0.0.1:{stub}/v1/models", process, log)
        log = folder / "litellm.log"
        process = stack.enter_context(running_process([*command, "--num_workers", "1"], log, {first}, _ENVIRONMENT))
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(f"{url}/health/liveliness", process, log)
        yield LiteLLM(Proxy(url, lambda: cpu_seconds(process), lambda: rss_megabytes(process)), urls[1])


def run(cache: Path, folder: Path, rounds: int) -> list[Table]:
    """Start both proxies, measure, and return the tables. Raises `SystemExit` if responses are incomplete."""
    whole: Loads = {count: {OURS: ProxyLoad(), THEIRS: ProxyLoad()} for count in CONCURRENCIES}
    streamed: Loads = {count: {OURS: ProxyLoad(), THEIRS: ProxyLoad()} for count in CONCURRENCIES}
    added: Added = {count: {OURS: [], THEIRS: []} for count in CONCURRENCIES}
    with litellm(cache, folder) as theirs:
        with gateway_overhead.run_gateway() as ours:
            proxies = {OURS: Proxy(ours.url, ours.seconds, ours.megabytes), THEIRS: theirs.proxy}
            for number in range(rounds + 1):
                for name in _order(number):
                    for count in CONCURRENCIES:
                        _load(proxies[name], whole[count][name], 1, count, NUM_REQUESTS[count], number)
                        _load(proxies[name], streamed[count][name], TOKENS, count, NUM_STREAMS[count], number)
        with gateway_overhead.run_gateway(gateway_overhead.TOKEN_INTERVAL) as paced:
            for number in range(rounds + 1):
                for name in _order(number):
                    for count in CONCURRENCIES:
                        times = _gateway_added(paced, count) if name == OURS else _litellm_added(theirs, count)
                        if number:
                            added[count][name].append(times)
    return tables(whole, streamed, added, LITELLM.contents(cache))


def _order(number: int) -> Sequence[str]:
    return (OURS, THEIRS)[:: 1 if number % 2 else -1]


def _load(proxy: Proxy, load: ProxyLoad, tokens: int, count: int, requests: int, number: int) -> None:
    """Run one load of the round `number` and add its results to `load`. Round 0 is a warm-up and is not added."""
    before = proxy.cpu()
    timings = _run_requests(proxy.url, MODEL, tokens, count, requests, stream=tokens > 1)
    if number:
        load.rates.append(timings.tokens / timings.seconds)
        load.cpu += proxy.cpu() - before
        load.units += timings.tokens
        load.megabytes = max(load.megabytes, proxy.megabytes())


def _run_requests(
    url: str, model: str, tokens: int, count: int, requests: int, *, stream: bool = True
) -> StreamTimings:
    timings = asyncio.run(run_streams(url, chat_body(model, tokens, stream=stream), count, requests))
    if timings.errors or timings.tokens != requests * tokens:
        raise SystemExit(f"{timings.tokens} of {requests * tokens} tokens came from {url}: {timings.errors[:3]}")
    return timings


def _gateway_added(gateway: gateway_overhead.RunningGateway, count: int) -> tuple[float, float]:
    """Return the p50 and p99 of the time that the gateway adds to the first token, in seconds."""
    direct = gateway_overhead.first_tokens_over_grpc(gateway.triton, count, PACED_TOKENS, NUM_PACED_STREAMS[count])
    through = _run_requests(gateway.url, MODEL, PACED_TOKENS, count, NUM_PACED_STREAMS[count])
    return _difference(through.first_token_seconds, direct)


def _litellm_added(litellm: LiteLLM, count: int) -> tuple[float, float]:
    """Return the p50 and p99 of the time that LiteLLM's proxy adds to the first token, in seconds."""
    direct = _run_requests(litellm.paced_url, PACED, PACED_TOKENS, count, NUM_PACED_STREAMS[count])
    through = _run_requests(litellm.proxy.url, PACED, PACED_TOKENS, count, NUM_PACED_STREAMS[count])
    return _difference(through.first_token_seconds, direct.first_token_seconds)


def _difference(through: Sequence[float], direct: Sequence[float]) -> tuple[float, float]:
    p50, p99 = (percentile(through, share) - percentile(direct, share) for share in (0.5, 0.99))
    return p50, p99


def tables(whole: Loads, streamed: Loads, added: Added, installed: Mapping[str, str]) -> list[Table]:
    """Return the tables of the results. `installed` are the packages of LiteLLM's environment, for the JSON file."""
    title = "Tritonic's gateway and LiteLLM's proxy, one core each"
    result = [
        _loads(f"{title}: answers without streaming", whole, "requests/s", "CPU per request", "ms", 1e3),
        _loads(f"{title}: streams", streamed, "tokens/s", "CPU per token", "µs", 1e6),
    ]
    rows: list[tuple[Value, ...]] = []
    for count, proxies in added.items():
        medians = [
            statistics.median(times[place] for times in proxies[name]) for place in (0, 1) for name in (OURS, THEIRS)
        ]
        rows.append((count, *(1000 * value for value in medians)))
    columns = [Column(f"{name}, {share}", "ms", 1) for share in ("p50", "p99") for name in (OURS, THEIRS)]
    result.append(
        Table(
            f"{title}: added time to the first token, a token every {1000 * gateway_overhead.TOKEN_INTERVAL:.0f} ms",
            (Column("in flight"), *columns),
            rows,
            plots=(Plot("in flight", tuple(column.name for column in columns[:2]), log_x=True, log_y=True),),
            versions={"LiteLLM": LITELLM.version},
            details={
                "rounds": {str(count): proxies for count, proxies in added.items()},
                "installed": {THEIRS: dict(installed)},
            },
        )
    )
    return result


def _loads(title: str, loads: Loads, rate: str, cpu: str, unit: str, scale: float) -> Table:
    """Return the table of one kind of load. `scale` converts CPU seconds to `unit`."""
    rows: list[tuple[Value, ...]] = []
    thresholds = []
    for count, proxies in loads.items():
        ours, theirs = proxies[OURS], proxies[THEIRS]
        ratios = [our_rate / their_rate for our_rate, their_rate in zip(ours.rates, theirs.rates, strict=True)]
        ratio = statistics.median(ratios)
        rates = [statistics.median(load.rates) for load in (ours, theirs)]
        costs = [scale * load.cpu_each for load in (ours, theirs)]
        rows.append((count, *rates, ratio, *costs, costs[1] / costs[0], ours.megabytes, theirs.megabytes, ratios))
        thresholds.append(Threshold(f"{rate} ÷ LiteLLM's proxy, {count} at once", ratio, 5.0, digits=1))
    columns = (
        Column("in flight"),
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
        plots=(Plot("in flight", (OURS, THEIRS), log_x=True, log_y=True),),
        thresholds=tuple(thresholds),
        versions={"LiteLLM": LITELLM.version},
        details={"rates": {str(count): _rates(proxies) for count, proxies in loads.items()}},
    )


def _rates(proxies: Mapping[str, ProxyLoad]) -> dict[str, list[float]]:
    return {name: load.rates for name, load in proxies.items()}
