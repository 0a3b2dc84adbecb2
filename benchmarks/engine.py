"""The bare text-generation engine at 1, 4, 8 and 16 streams, next to llama.cpp on the same weights.

python benchmarks/engine.py ENGINE_FOLDER [--gguf MODEL.gguf] [--rounds 5] [--json OUT.json]

ENGINE_FOLDER is a model's version folder (model_repository/NAME/1). Each engine lives in a process of its own, and only
one works at a time: round by round and load by load they take turns on the same prompts, so that what else the machine
does hits both. Every stream has 128 random prompt tokens of its own and generates 64, greedy, without an end. Printed
are medians over the rounds and their ratio; a GGUF is made by benchmarks/gguf_q8_0.py.
"""

import argparse
import contextlib
import functools
import itertools
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil

LOADS = (1, 4, 8, 16)
PROMPT_TOKENS, NEW_TOKENS = 128, 64

# Begins one stream and calls back at each token; blocks until the stream has ended or not, as the engine likes.
Begin = Callable[[list[int], Callable[[], None], Callable[[], None]], None]


def onnx_worker(folder: Path, threads: int) -> tuple[Begin, int]:
    from backends.llm.engine import Delta, Event, Generation
    from backends.llm.loading import load, load_tokenizer
    from backends.llm.options import Options
    from backends.llm.sampling import Sampling

    engine = load(folder, load_tokenizer(folder), Options(max_rows=max(LOADS), threads=threads)).engine

    def begin(prompt: list[int], token: Callable[[], None], end: Callable[[], None]) -> None:
        def sink(event: Event) -> None:
            assert isinstance(event, Delta), event
            token()
            if event.finish_reason:
                end()

        sampling = Sampling(temperature=0, max_tokens=NEW_TOKENS, ignore_eos=True)
        engine.submit(Generation(np.array(prompt, np.int64), sampling, sink))

    return begin, engine.vocab_size


def llama_worker(model: Path, threads: int) -> tuple[Begin, int]:
    import gguf
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(model)
    parameters.n_parallel = max(LOADS)
    parameters.n_ctx = max(LOADS) * 512
    parameters.cache_ram_mib = 0
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = threads
    server = xllamacpp.Server(parameters)

    def begin(prompt: list[int], token: Callable[[], None], end: Callable[[], None]) -> None:
        def chunk(value: Any) -> bool:
            part = json.loads(value) if isinstance(value, str | bytes) else value
            if part["choices"][0]["finish_reason"]:
                assert part["usage"]["completion_tokens"] == NEW_TOKENS, part
            else:
                token()
            return False

        def run() -> None:
            server.handle_completions(
                {
                    "prompt": prompt,
                    "max_tokens": NEW_TOKENS,
                    "temperature": 0,
                    "stream": True,
                    "ignore_eos": True,
                    "cache_prompt": False,
                },
                chunk,
            )
            end()

        threading.Thread(target=run).start()

    return begin, len(gguf.GGUFReader(model).fields["tokenizer.ggml.tokens"].data)


def run_load(begin: Begin, prompts: list[list[int]]) -> dict[str, float]:
    """Run all prompts at once: tokens/s over all, seconds to the first token, milliseconds between tokens."""
    times: list[list[float]] = [[] for _ in prompts]
    ended = threading.Semaphore(0)
    start = time.perf_counter()
    for prompt, own in zip(prompts, times, strict=True):
        begin(prompt, functools.partial(_note, own), ended.release)
    for _ in prompts:
        ended.acquire()
    seconds = time.perf_counter() - start
    gaps = [1000 * (b - a) for own in times for a, b in itertools.pairwise(own)]
    return {
        "tokens_per_second": len(prompts) * NEW_TOKENS / seconds,
        "first_token_seconds": statistics.median(own[0] - start for own in times),
        "step_milliseconds": statistics.median(gaps),
        "rss_megabytes": psutil.Process().memory_info().rss / 2**20,
    }


def _note(times: list[float]) -> None:
    times.append(time.perf_counter())


def work(kind: str, model: Path, threads: int) -> None:
    """Answer one line with the number of streams and a seed by one line of figures."""
    lines = os.fdopen(os.dup(1), "w")
    with contextlib.redirect_stdout(sys.stderr):
        os.dup2(2, 1)  # what native code prints must not get between the lines
        begin, vocab_size = {"onnx": onnx_worker, "llama": llama_worker}[kind](model, threads)
        for line in sys.stdin:
            streams, seed = json.loads(line)
            rng = np.random.default_rng(seed)
            prompts = rng.integers(100, vocab_size - 100, (streams, PROMPT_TOKENS)).tolist()
            print(json.dumps(run_load(begin, prompts)), file=lines, flush=True)
    os._exit(0)  # llama.cpp's server would wait for its own threads


class Worker:
    """An engine in a process of its own."""

    def __init__(self, kind: str, model: Path, threads: int) -> None:
        command = [sys.executable, __file__, "--worker", kind, str(model), "--threads", str(threads)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def run(self, streams: int, seed: int) -> dict[str, float]:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps([streams, seed]) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"The worker {self._process.args!r} died.")
        figures: dict[str, float] = json.loads(line)
        return figures

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(30)


def measure(workers: dict[str, Worker], rounds: int) -> dict[str, dict[int, dict[str, float]]]:
    """Medians by engine and load; the first round only warms up."""
    figures: dict[str, dict[int, list[dict[str, float]]]] = {name: {load: [] for load in LOADS} for name in workers}
    for number in range(rounds + 1):
        for load in LOADS:
            for name, worker in workers.items():
                found = worker.run(load, seed=1000 * number + load)
                if number:
                    figures[name][load].append(found)
    return {
        name: {
            load: {key: statistics.median(found[key] for found in rows) for key in rows[0]}
            for load, rows in loads.items()
        }
        for name, loads in figures.items()
    }


def markdown(medians: dict[str, dict[int, dict[str, float]]]) -> str:
    lines = ["| engine | streams | tokens/s | first token, s | ms/step | RSS, MB |", "|---|---:|---:|---:|---:|---:|"]
    for name, loads in medians.items():
        lines += [
            f"| {name} | {load} | {row['tokens_per_second']:.0f} | {row['first_token_seconds']:.3f} "
            f"| {row['step_milliseconds']:.1f} | {row['rss_megabytes']:.0f} |"
            for load, row in loads.items()
        ]
    if len(medians) == 2:
        ours, theirs = medians.values()
        ratios = (
            f"{load}: {ours[load]['tokens_per_second'] / theirs[load]['tokens_per_second']:.2f}" for load in LOADS
        )
        lines += ["", f"tokens/s, {' ÷ '.join(medians)}, by streams: " + ", ".join(ratios)]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?", help="a model's version folder")
    parser.add_argument("--gguf", type=Path, help="the same weights for llama.cpp")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.worker[0], Path(arguments.worker[1]), arguments.threads)
    if not arguments.model:
        parser.error("the model's version folder is missing")
    workers = {"tritonic": Worker("onnx", arguments.model, arguments.threads)}
    if arguments.gguf:
        workers["llama.cpp q8_0"] = Worker("llama", arguments.gguf, arguments.threads)
    try:
        medians = measure(workers, arguments.rounds)
    finally:
        for worker in workers.values():
            worker.close()
    print(markdown(medians))
    if arguments.json:
        arguments.json.write_text(json.dumps({"rounds": arguments.rounds, "medians": medians}, indent=2) + "\n")


if __name__ == "__main__":
    main()
