"""Aggregate throughput at 1, 4, 8 and 16 streams: bare engine, through Triton, through the gateway, and llama.cpp.

Round by round and load by load the four take turns with the same weights on the same cores, so that what else the
machine does hits all of them. Every stream has 128 prompt tokens of its own and generates 64, greedy, without an end.
Figures are medians over the rounds; ratios are medians of the rounds' ratios.
"""

import contextlib
import json
import os
import random
import re
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.workers import LOADS, Prompt, Worker
from tritonic.embedded import EmbeddedTriton
from tritonic.gateway_process import GatewayProcess
from tritonic.ports import free_ports

PROMPT_TOKENS = 128

Figures = dict[str, float]
Rounds = dict[str, dict[int, list[Figures]]]
"""By worker and load, one of `Figures` for each round."""


def whole_words(tokenizer_file: Path) -> list[tuple[int, str]]:
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


def measure(workers: dict[str, Worker], words: list[tuple[int, str]], rounds: int) -> Rounds:
    """The first round only warms up."""
    figures: Rounds = {name: {load: [] for load in LOADS} for name in workers}
    for number in range(rounds + 1):
        for load in LOADS:
            # Each round begins with another one, so that none always follows the same.
            order = list(workers)[number % len(workers) :] + list(workers)[: number % len(workers)]
            for name in order:
                # Not the same prompts for each: two of them are the same server, which knows what it read before.
                prompts = make_prompts(words, load, f"{number} {load} {name}")
                found = workers[name].run(prompts)
                if number:
                    figures[name][load].append(found)
    return figures


def median(rows: list[Figures], key: str) -> float:
    return statistics.median(row[key] for row in rows)


def ratio(figures: Rounds, above: str, below: str, load: int, key: str = "tokens_per_second") -> float:
    pairs = zip(figures[above][load], figures[below][load], strict=True)
    return statistics.median(a[key] / b[key] for a, b in pairs)


def markdown(figures: Rounds) -> str:
    lines = ["| | streams | tokens/s | first token, s | ms/token |", "|---|---:|---:|---:|---:|"]
    for name, loads in figures.items():
        lines += [
            f"| {name} | {load} | {median(rows, 'tokens_per_second'):.0f} "
            f"| {median(rows, 'first_token_seconds'):.3f} | {median(rows, 'token_milliseconds'):.1f} |"
            for load, rows in loads.items()
        ]
    lines += ["", "| tokens/s, ratio | " + " | ".join(f"{load} streams" for load in LOADS) + " |"]
    lines.append("|---|" + "---:|" * len(LOADS))
    pairs = [("through Triton", "bare engine"), ("through the gateway", "through Triton")]
    pairs += [(name, "llama.cpp q8_0") for name in figures if name != "llama.cpp q8_0"]
    for above, below in pairs:
        if above in figures and below in figures:
            cells = " | ".join(f"{ratio(figures, above, below, load):.2f}" for load in LOADS)
            lines.append(f"| {above} ÷ {below} | {cells} |")
    return "\n".join(lines)


def run(repository: Path, model: str, gguf: Path | None, rounds: int, out: Path | None) -> str:
    """Start everything, measure, and return the tables; figures of every round go to `out` as JSON."""
    engine = repository / model / "1"
    threads = len(os.sched_getaffinity(0))
    words = whole_words(engine / "tokenizer.json")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        triton = stack.enter_context(EmbeddedTriton(repository))
        front = GatewayProcess("127.0.0.1", free_ports(1)[0], triton.grpc_url, folder / "gateway.log")
        front.start()
        stack.callback(front.stop)
        front.wait_live()
        while not front.has_models():
            time.sleep(0.1)
        targets = {
            "bare engine": ("bare", str(engine)),
            "through Triton": ("triton", f"{triton.grpc_url}/{model}"),
            "through the gateway": ("gateway", f"{front.url} {model}"),
        }
        if gguf:
            targets["llama.cpp q8_0"] = ("llama", str(gguf))
        workers = {name: Worker(kind, target, threads) for name, (kind, target) in targets.items()}
        try:
            figures = measure(workers, words, rounds)
        finally:
            for worker in workers.values():
                worker.close()
        ours, gateway = _resident(triton.pid), _resident(front.child.pid)
        memory = f"Memory: Triton with the model {ours:.0f} MB, gateway {gateway:.0f} MB."
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps({"rounds": rounds, "figures": figures}, indent=2) + "\n")
    return f"{markdown(figures)}\n\n{memory}"


def _resident(pid: int) -> float:
    """Megabytes of a process and everything below it."""
    import psutil

    root = psutil.Process(pid)
    return float(sum(process.memory_info().rss for process in [root, *root.children(recursive=True)])) / 2**20
