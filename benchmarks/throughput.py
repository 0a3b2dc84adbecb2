"""Aggregate throughput at 1, 4, 8 and 16 streams: bare engine, through Triton, through the gateway, and llama.cpp.

Round by round and load by load the four take turns with the same weights on the same cores, so that what else the
machine does hits all of them. Every stream has 128 prompt tokens of its own and generates 64, greedy, without an end.
Figures are medians over the rounds; ratios are medians of the rounds' ratios.
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
LLAMA = "llama.cpp q8_0"

ThroughputStats = dict[str, float]
Rounds = dict[str, dict[int, list[ThroughputStats]]]
"""By worker and load, one of `Figures` for each round."""


def single_token_words(tokenizer_file: Path) -> list[tuple[int, str]]:
    """Tokens that are a word with the space before it, and stay themselves in any row of such words."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    words = []
    for token in range(tokenizer.get_vocab_size()):
        text = tokenizer.decode([token])
        if re.fullmatch(r" [a-z]{3,}", text) and tokenizer.encode(text, add_special_tokens=False).ids == [token]:
            words.append((token, text))
    return words


def make_prompts(words: list[tuple[int, str]], streams: int, seed: str) -> list[Prompt]:
    chance = random.Random(seed)
    prompts = []
    for _ in range(streams):
        chosen = chance.choices(words, k=PROMPT_TOKENS)
        prompts.append({"ids": [token for token, _ in chosen], "text": "".join(text for _, text in chosen)})
    return prompts


def measure(
    workers: dict[str, GenerationWorker], words: list[tuple[int, str]], rounds: int, loads: tuple[int, ...] = LOADS
) -> Rounds:
    """The first round only warms up."""
    figures: Rounds = {name: {load: [] for load in loads} for name in workers}
    for number in range(rounds + 1):
        for load in loads:
            # Each round begins with another one, so that none always follows the same.
            order = list(workers)[number % len(workers) :] + list(workers)[: number % len(workers)]
            for name in order:
                # Not the same prompts for each: two of them are the same server, which knows what it read before.
                prompts = make_prompts(words, load, f"{number} {load} {name}")
                found = workers[name].run(prompts)
                if number:
                    figures[name][load].append(found)
    return figures


def median(rows: list[ThroughputStats], key: str) -> float:
    return statistics.median(row[key] for row in rows)


def ratio(figures: Rounds, above: str, below: str, load: int, key: str = "tokens_per_second") -> float:
    pairs = zip(figures[above][load], figures[below][load], strict=True)
    return statistics.median(a[key] / b[key] for a, b in pairs)


def tables(figures: Rounds, notes: tuple[str, ...] = ()) -> list[Table]:
    """Rates and waits of every way, and their ratios."""
    columns = (
        Column("way"),
        Column("streams"),
        Column("rate", "tokens/s"),
        Column("first token", "s", 3),
        Column("a token", "ms", 1),
    )
    rows: list[tuple[Value, ...]] = [
        (
            name,
            load,
            median(found, "tokens_per_second"),
            median(found, "first_token_seconds"),
            median(found, "token_milliseconds"),
        )
        for name, loads in figures.items()
        for load, found in loads.items()
    ]
    plots = (
        Plot("streams", ("rate",), by="way", title="Tokens of all streams", log_x=True),
        Plot("streams", ("first token",), by="way", title="Wait for the first token", log_x=True, log_y=True),
    )
    loads = list(next(iter(figures.values())))
    pairs = [("through Triton", "bare engine"), ("through the gateway", "through Triton")]
    pairs += [(name, LLAMA) for name in figures if name != LLAMA]
    ratios: list[tuple[Value, ...]] = [
        (f"{above} ÷ {below}", *(ratio(figures, above, below, load) for load in loads))
        for above, below in pairs
        if above in figures and below in figures
    ]
    at = tuple(Column(f"{load} streams" if load > 1 else "1 stream", digits=2) for load in loads)
    return [
        Table(
            "The same weights on the same cores",
            columns,
            rows,
            notes,
            plots,
            versions={name: version(name) for name in ("nvidia-pytriton", "onnxruntime", "xllamacpp")},
            details={"rounds": figures},
        ),
        Table("Tokens/s, ratio", (Column("ways"), *at), ratios),
    ]


def run(repository: Path, model: str, gguf: Path | None, rounds: int, loads: tuple[int, ...] = LOADS) -> list[Table]:
    """Start everything, measure, and return the tables; those for JSON have the figures of every round."""
    engine = repository / model / "1"
    threads = len(os.sched_getaffinity(0))
    words = single_token_words(engine / "tokenizer.json")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        triton = stack.enter_context(EmbeddedTriton(repository))
        triton.share_secret()
        front = GatewayProcess("127.0.0.1", free_ports(1)[0], triton.grpc_url, folder / "gateway.log")
        front.start()
        stack.callback(front.stop)
        front.wait_live()
        wait_for_models(front)
        targets = {
            "bare engine": ("bare", str(engine)),
            "through Triton": ("triton", f"{triton.grpc_url}/{model}"),
            "through the gateway": ("gateway", f"{front.url} {model}"),
        }
        if gguf:
            targets[LLAMA] = ("llama", str(gguf))
        workers = {name: GenerationWorker(kind, target, threads) for name, (kind, target) in targets.items()}
        try:
            figures = measure(workers, words, rounds, loads)
        finally:
            for worker in workers.values():
                worker.close()
        ours, gateway = _resident(triton.pid), _resident(front.child.pid)
        memory = f"Memory: Triton with the model {ours:.0f} MB, gateway {gateway:.0f} MB."
    return tables(figures, (memory,))


def _resident(pid: int) -> float:
    """Megabytes of a process and everything below it."""
    import psutil

    root = psutil.Process(pid)
    return float(sum(process.memory_info().rss for process in [root, *root.children(recursive=True)])) / 2**20
