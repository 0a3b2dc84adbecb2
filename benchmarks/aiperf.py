"""Chats through the gateway as NVIDIA's AIPerf measures them, next to NVIDIA's perf_analyzer straight to Triton.

Both keep a number of streams open, each request following another one, with the same 64 prompts in the same order, 64
new tokens, greedy, without an end; round by round they take turns. AIPerf asks the OpenAI endpoint over HTTP,
perf_analyzer the same model over gRPC, each chat as the model's own template renders it. The most streams are asked
first, and a round before the measured ones has sent every prompt, so that both find the beginnings remembered. Both
tools export when each text of each request came; all figures are computed from these by `benchmarks.timings`, in the
same way for both: rates are of the tokens that came within the measured seconds, after which both go on for a while,
as in `benchmarks.gateway_vs_direct`; times are of the requests that ended within them.

AIPerf's figures were checked against those of the client of `benchmarks.peers`, in turns, in front of a scripted model
with a token every 20 ms: rates, times between tokens and latencies of the two differ by no more than they do from run
to run (a tenth to a fifth on a busy machine). At a single stream AIPerf sees the first token some 15 ms later: its
workers are several processes, which perf_analyzer's client is not, so a ratio of first tokens above 1 is partly AIPerf.

AIPerf is installed from PyPI into an environment of its own in the cache folder. It counts tokens by the `usage` that
the server reports; the tokenizer that it insists on is read from the model's own folder. (It must not be told to be
offline: version 0.13 then takes any path for the name of a repository.)
"""

import itertools
import json
import os
import statistics
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import perf_analyzer
from benchmarks.deployment import Deployment, deploy
from benchmarks.gateway_vs_direct import measure
from benchmarks.peer_programs import PyPIProgram
from benchmarks.perf_analyzer import NEW_TOKENS, make_prompts, render_prompts
from benchmarks.tables import Column, Plot, Table, Threshold
from benchmarks.timings import STATS, ResponseTiming, Stats, medians, ratios

AIPERF = PyPIProgram("aiperf", "0.13.0")
STREAMS = (16, 1)
SECONDS = 15.0


def input_lines(prompts: Iterable[str]) -> str:
    """AIPerf's `single_turn` data set: a line of JSON for each prompt."""
    return "".join(json.dumps({"text": prompt}) + "\n" for prompt in prompts)


def read_records(lines: Iterable[str]) -> list[ResponseTiming]:
    """Read AIPerf's `profile_export.jsonl`. Raises `RuntimeError` where a request failed or was cut off."""
    found = []
    for line in lines:
        record = json.loads(line)
        about, metrics = record["metadata"], record["metrics"]
        if record.get("error") or about["was_cancelled"]:
            raise RuntimeError(f"AIPerf's request failed: {record.get('error') or 'cancelled'}")
        began = about["request_start_ns"] / 1e9
        gaps = [metrics["time_to_first_token"]["value"], *metrics["inter_chunk_latency"]["value"]]
        arrivals = tuple(began + passed / 1e3 for passed in itertools.accumulate(gaps))
        found.append(ResponseTiming(began, arrivals, int(metrics["output_sequence_length"]["value"])))
    return found


def through_gateway(
    commands: Path, run: Deployment, tokenizer: Path, prompts: Sequence[str], streams: int, seconds: float
) -> list[ResponseTiming]:
    """When AIPerf got its answers in so many seconds. Raises `SystemExit` with what it said."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "prompts.jsonl").write_text(input_lines(prompts))
        command = [commands / "aiperf", "profile", "--model", run.model, "--url", run.gateway_url]
        command += ["--endpoint-type", "chat", "--streaming", "--use-server-token-count", "--tokenizer", tokenizer]
        command += ["--input-file", folder / "prompts.jsonl", "--custom-dataset-type", "single_turn"]
        command += ["--dataset-sampling-strategy", "sequential", "--concurrency", streams, "--osl", NEW_TOKENS]
        command += ["--extra-inputs", "temperature:0", "ignore_eos:true"]
        command += ["--benchmark-duration", seconds, "--benchmark-grace-period", "inf"]
        command += ["--no-gpu-telemetry", "--no-server-metrics", "--ui-type", "none"]
        command += ["--output-artifact-dir", folder / "found"]
        without = {"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"}
        environment = {name: value for name, value in os.environ.items() if name not in without}
        environment["NO_PROXY"] = "*"
        done = subprocess.run(
            list(map(str, command)), cwd=folder, env=environment, capture_output=True, text=True, timeout=600
        )
        records = folder / "found" / "profile_export.jsonl"
        if done.returncode or not records.exists():
            raise SystemExit(f"AIPerf failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
        return read_records(records.read_text().splitlines())


def direct(
    binary: perf_analyzer.Executable, run: Deployment, texts: Sequence[str], streams: int, seconds: float
) -> list[ResponseTiming]:
    """When perf_analyzer got its answers in so many seconds. Raises `RuntimeError` with what it said."""
    sampling = json.dumps({"max_tokens": NEW_TOKENS, "temperature": 0, "ignore_eos": True})
    asked = [{"text_input": [text], "sampling_parameters": [sampling], "stream": [True]} for text in texts]
    options = ("-m", run.model, "-u", run.triton_url, "-i", "grpc", "--streaming", "--async", "--max-threads", "4")
    return perf_analyzer.measure(binary, options, asked, streams, seconds, NEW_TOKENS)


def run(repository: Path, model: str, rounds: int, cache: Path, *, quick: bool = False) -> list[Table]:
    """Measure both ways in turns."""
    binary, commands = perf_analyzer.install(cache), AIPERF.installed(cache)
    tokenizer = repository.resolve() / model / "1"
    prompts = make_prompts(tokenizer / "tokenizer.json")
    texts = render_prompts(repository / model, prompts)
    found: dict[int, list[dict[str, Stats]]] = {}
    with deploy(repository, model) as run:
        for streams in STREAMS:
            ways = {
                "direct": partial(direct, binary, run, texts, streams),
                "gateway": partial(through_gateway, commands, run, tokenizer, prompts, streams),
            }
            found[streams] = measure(ways, SECONDS / (2 if quick else 1), rounds)
    return [table(dict(sorted(found.items())), AIPERF.contents(cache))]


def table(found: Mapping[int, Sequence[Mapping[str, Stats]]], installed: Mapping[str, str] | None = None) -> Table:
    """For each number of streams and each figure both ways, and the ratio gateway ÷ direct: the rounds' median.

    `installed` are the packages beside AIPerf, for JSON.
    """
    rows: list[tuple[Any, ...]] = []
    bars = []
    for streams, rounds in found.items():
        both = {way: medians([each[way] for each in rounds]) for way in ("direct", "gateway")}
        for key, (name, unit, size, digits) in STATS.items():
            over = ratios(rounds, "gateway", "direct", key)
            cells = (f"{size * both[way][key]:.{digits}f}" for way in ("direct", "gateway"))
            rows.append((streams, f"{name}{', ' * bool(unit)}{unit}", *cells, statistics.median(over), over))
            if (streams, key) == (16, "tokens/s"):
                bars.append(Threshold("AIPerf's chats ÷ direct, tokens/s at 16 streams", statistics.median(over), 0.97))
    columns = (
        Column("streams"),
        Column("figure"),
        Column("perf_analyzer over gRPC"),
        Column("AIPerf through the gateway"),
        Column("gateway ÷ direct", digits=3),
        Column("rounds", digits=2),
    )
    return Table(
        "Chats through the gateway (AIPerf) and straight to Triton (perf_analyzer)",
        columns,
        rows,
        plots=(Plot("streams", ("gateway ÷ direct",), by="figure", log_x=True),),
        thresholds=tuple(bars),
        versions={"AIPerf": AIPERF.version, "perf_analyzer": perf_analyzer.VERSION},
        details={
            "rounds": {str(streams): list(rounds) for streams, rounds in found.items()},
            "installed": {"AIPerf": dict(installed or {})},
        },
    )
