"""Throughput at 1, 4, 8 and 16 streams of the engine alone, through Triton, through the gateway, and of llama.cpp.

The four systems have the same weights and run on the same cores. They take turns for each load of each round, so that
other work on the machine affects all of them alike. Each stream has its own prompt of 128 tokens and generates 64,
greedy, past the end of the text. Values are medians over the rounds; ratios are medians of the rounds' ratios.
"""

import contextlib
import os
import random
import re
import statistics
import tempfile
from importlib.metadata import version
from pathlib import Path

from benchmarks.deployment import wait_for_models
from benchmarks.generation_workers import LOADS, GenerationWorker, Prompt
from benchmarks.tables import Column, Plot, Table, Value
from tritonic.embedded import EmbeddedTriton
from tritonic.gateway_process import GatewayProcess
from tritonic.ports import free_ports

PROMPT_TOKENS = 128
ENGINE, LLAMA = "engine alone", "llama.cpp q8_0"

ThroughputStats = dict[str, float]
Rounds = dict[str, dict[int, list[ThroughputStats]]]
"""The results of each round, by worker and number of streams."""


def single_token_words(tokenizer_file: Path) -> list[tuple[int, str]]:
    """Return the id and text of the tokens that are a word with a leading space.

    A text of such words is always split into these tokens.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    words = []
    for token in range(tokenizer.get_vocab_size()):
        text = tokenizer.decode([token])
        if re.fullmatch(r" [a-z]{3,}", text) and tokenizer.encode(text, add_special_tokens=False).ids == [token]:
            words.append((token, text))
    return words


def make_prompts(words: list[tuple[int, str]], streams: int, seed: str) -> list[Prompt]:
    """Return a prompt of `PROMPT_TOKENS` random words for each stream."""
    rng = random.Random(seed)
    prompts = []
    for _ in range(streams):
        chosen = rng.choices(words, k=PROMPT_TOKENS)
        prompts.append({"ids": [token for token, _ in chosen], "text": "".join(text for _, text in chosen)})
    return prompts


def measure(
    workers: dict[str, GenerationWorker], words: list[tuple[int, str]], rounds: int, loads: tuple[int, ...] = LOADS
) -> Rounds:
    """Run all loads in all rounds, and return the results. A warm-up round comes first and is not returned."""
    results: Rounds = {name: {load: [] for load in loads} for name in workers}
    for number in range(rounds + 1):
        for load in loads:
            # Each round begins with another worker, so that no worker always follows the same one.
            order = list(workers)[number % len(workers) :] + list(workers)[: number % len(workers)]
            for name in order:
                # Each worker has its own prompts: two workers use the same server, which has a prefix cache.
                prompts = make_prompts(words, load, f"{number} {load} {name}")
                stats = workers[name].run(prompts)
                if number:
                    results[name][load].append(stats)
    return results


def median(rounds: list[ThroughputStats], key: str) -> float:
    """Return the median of one value over the rounds."""
    return statistics.median(stats[key] for stats in rounds)


def ratio(results: Rounds, numerator: str, denominator: str, load: int, key: str = "tokens_per_second") -> float:
    """Return the median of the rounds' ratios of two systems."""
    pairs = zip(results[numerator][load], results[denominator][load], strict=True)
    return statistics.median(above[key] / below[key] for above, below in pairs)


def tables(results: Rounds, notes: tuple[str, ...] = ()) -> list[Table]:
    """Return the table of rates and latencies of each system, and the table of ratios."""
    columns = (
        Column("system"),
        Column("streams"),
        Column("rate", "tokens/s"),
        Column("first token", "s", 3),
        Column("time per token", "ms", 1),
    )
    rows: list[tuple[Value, ...]] = [
        (
            name,
            load,
            median(rounds, "tokens_per_second"),
            median(rounds, "first_token_seconds"),
            median(rounds, "token_milliseconds"),
        )
        for name, loads in results.items()
        for load, rounds in loads.items()
    ]
    plots = (
        Plot("streams", ("rate",), by="system", title="Tokens of all streams", log_x=True),
        Plot("streams", ("first token",), by="system", title="Time to first token", log_x=True, log_y=True),
    )
    loads = list(next(iter(results.values())))
    pairs = [("through Triton", ENGINE), ("through the gateway", "through Triton")]
    pairs += [(name, LLAMA) for name in results if name != LLAMA]
    ratios: list[tuple[Value, ...]] = [
        (f"{numerator} ÷ {denominator}", *(ratio(results, numerator, denominator, load) for load in loads))
        for numerator, denominator in pairs
        if numerator in results and denominator in results
    ]
    ratio_columns = tuple(Column(f"{load} streams" if load > 1 else "1 stream", digits=2) for load in loads)
    return [
        Table(
            "The same weights on the same cores",
            columns,
            rows,
            notes,
            plots,
            versions={name: version(name) for name in ("nvidia-pytriton", "onnxruntime", "xllamacpp")},
            details={"rounds": results},
        ),
        Table("Tokens/s, ratio", (Column("systems"), *ratio_columns), ratios),
    ]


def run(repository: Path, model: str, gguf: Path | None, rounds: int, loads: tuple[int, ...] = LOADS) -> list[Table]:
    """Start Triton, the gateway and all workers, measure, and return the tables.

    Without `gguf`, llama.cpp is left out. The details of the tables have the results of each round.
    """
    engine = repository / model / "1"
    threads = len(os.sched_getaffinity(0))
    words = single_token_words(engine / "tokenizer.json")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        triton = stack.enter_context(EmbeddedTriton(repository))
        triton.share_secret()
        gateway = GatewayProcess("127.0.0.1", free_ports(1)[0], triton.grpc_url, folder / "gateway.log")
        gateway.start()
        stack.callback(gateway.stop)
        gateway.wait_live()
        wait_for_models(gateway)
        targets = {
            ENGINE: ("engine", str(engine)),
            "through Triton": ("triton", f"{triton.grpc_url}/{model}"),
            "through the gateway": ("gateway", f"{gateway.url} {model}"),
        }
        if gguf:
            targets[LLAMA] = ("llama", str(gguf))
        workers = {name: GenerationWorker(kind, target, threads) for name, (kind, target) in targets.items()}
        try:
            results = measure(workers, words, rounds, loads)
        finally:
            for worker in workers.values():
                worker.close()
        triton_memory, gateway_memory = _resident_megabytes(triton.pid), _resident_megabytes(gateway.child.pid)
        memory = f"Memory: Triton with the model {triton_memory:.0f} MB, gateway {gateway_memory:.0f} MB."
    return tables(results, (memory,))


def _resident_megabytes(pid: int) -> float:
    """Return the resident memory of a process and its descendants, in units of 2^20 bytes."""
    import psutil

    root = psutil.Process(pid)
    return float(sum(process.memory_info().rss for process in [root, *root.children(recursive=True)])) / 2**20
