"""Measures the compression variants of the default model: `python -m benchmarks.perplexity [VARIANT …]`.

For each variant: the perplexity over two chapters of Alice in Wonderland (Lewis Carroll, 1865; in `benchmarks/data`),
the divergence from fp32 at each position, greedy answers to ten questions, the size, and the speed of the serving
engine's forward pass. The default variant was chosen by these numbers: docs/decisions/0002-default-precision.md.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from builders import recipe, sources
from builders.checkpoint import Checkpoint
from builders.llm import export_step
from builders.llm.onnx_decoder import OnnxDecoder
from builders.progress import NullProgress

TEXT = Path(__file__).parent / "data" / "alice.txt"
WINDOW = 1024
# `accuracy_level` 1 is left out: it takes thirty times as long for each token, which is hours here.
VARIANTS: dict[str, dict[str, Any]] = {
    "fp32": {"precision": "fp32"},
    "int8": {"precision": "int8", "quantization": {}},
    "int8, blocks of 64": {"precision": "int8", "quantization": {"block_size": 64}},
    "int8, blocks of 128": {"precision": "int8", "quantization": {"block_size": 128}},
    "int8, zero points": {"precision": "int8", "quantization": {"symmetric": False}},
    "int8, zero points, blocks of 64": {"precision": "int8", "quantization": {"symmetric": False, "block_size": 64}},
    "int8, zero points, blocks of 128": {"precision": "int8", "quantization": {"symmetric": False, "block_size": 128}},
    "int8, k-quant": {"precision": "int8", "quantization": {"method": "k_quant"}},
    "int4": {"precision": "int4", "quantization": {}},
    "int4, embedding in fp32": {"precision": "int4", "quantization": {"embedding_in_fp32": True}},
    "int4, zero points": {"precision": "int4", "quantization": {"symmetric": False, "embedding_in_fp32": True}},
    "int4, k-quant, head in int8": {
        "precision": "int4",
        "quantization": {"method": "k_quant", "symmetric": False, "embedding_in_fp32": True, "head_in_int8": True},
    },
}
QUESTIONS = {
    "What is the capital of France?": "paris",
    "What is 2+2?": "4",
    "What color is the sky on a clear day?": "blue",
    "Who wrote Romeo and Juliet?": "shakespeare",
    "What is the largest planet in the solar system?": "jupiter",
    "How many days are in a week?": "seven|7",
    "What is the chemical symbol for water?": "h2o|h₂o",
    "What language is spoken in Brazil?": "portuguese",
    "What is the opposite of hot?": "cold",
    "In which country is the city of Tokyo?": "japan",
}
ROWS = (1, 4, 16)
ROUNDS = 5
STEPS = 32


def perplexity(decoder: OnnxDecoder, tokens: list[int], reference: list[Any] | None) -> tuple[float, float, list[Any]]:
    """Return the perplexity over windows of the text, the mean divergence in nats, and the log-probabilities.

    `reference` are the log-probabilities of another decoder, [tokens, vocabulary] for each window. With a reference,
    the third value is empty; without one, the divergence is 0.
    """
    losses: list[float] = []
    divergences: list[float] = []
    log_probabilities = []
    for start in range(0, len(tokens), WINDOW):
        window = tokens[start : start + WINDOW]
        decoder.reset()
        logits = decoder.logits(window)[:-1].astype(np.float64)
        logits -= logits.max(-1, keepdims=True)
        log = (logits - np.log(np.exp(logits).sum(-1, keepdims=True))).astype(np.float32)
        losses += (-log[np.arange(len(log)), window[1:]]).tolist()
        if reference is None:
            log_probabilities.append(log)
        else:
            expected = reference[start // WINDOW]
            divergences += (np.exp(expected) * (expected - log)).sum(-1).tolist()
    return float(np.exp(np.mean(losses))), float(np.mean(divergences or [0.0])), log_probabilities


def answers(decoder: OnnxDecoder, checkpoint: Checkpoint, tokenizer: Tokenizer) -> dict[str, str]:
    """Return greedy answers of at most 48 tokens, by question."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(checkpoint.chat_template() or "")
    end_tokens = set(checkpoint.end_token_ids())
    texts = {}
    for question in QUESTIONS:
        prompt = template.render(messages=[{"role": "user", "content": question}], add_generation_prompt=True)
        decoder.reset()
        logits = decoder.step(tokenizer.encode(prompt, add_special_tokens=False).ids)
        out: list[int] = []
        while len(out) < 48 and (token := int(logits.argmax())) not in end_tokens:
            out.append(token)
            logits = decoder.step([token])
        texts[question] = tokenizer.decode(out)
    return texts


def is_right(question: str, answer: str) -> bool:
    """Return True if the answer has one of the expected words."""
    return any(word in answer.lower() for word in QUESTIONS[question].split("|"))


def speed(engine: Path) -> dict[int, float]:
    """Return the tokens/s of the serving engine's decode steps after 128 prompt tokens, by the number of rows."""
    from backends.llm.ort.decoder_config import read_decoder_config
    from backends.llm.ort.model_runner import OrtModelRunner

    runner = OrtModelRunner(read_decoder_config(engine), max_rows=max(ROWS), context_length=512, threads=0)
    prompt = np.random.default_rng(0).integers(100, 40_000, 128)
    first = int(runner.prefill(0, prompt, 0).argmax())
    for row in range(1, max(ROWS)):
        runner.copy(0, row, 0, len(prompt))
    rates = {}
    for rows in ROWS:
        tokens = np.full(rows, first)
        lengths = np.full(rows, len(prompt))
        started = time.perf_counter()
        for _ in range(STEPS):
            tokens = runner.decode(tokens, lengths).argmax(-1)
            lengths = lengths + 1
        rates[rows] = STEPS * rows / (time.perf_counter() - started)
    runner.close()
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("variants", nargs="*", default=list(VARIANTS), help=f"of: {', '.join(VARIANTS)}")
    parser.add_argument("--answers", type=Path, help="write every answer to this JSON file")
    options = parser.parse_args()
    variants = list(dict.fromkeys(["fp32", *options.variants]))
    with tempfile.TemporaryDirectory(prefix="perplexity-") as name:
        measure(variants, Path(name), options.answers)


def measure(variants: list[str], folder: Path, answers_file: Path | None) -> None:
    """Build and measure all variants in `folder`, and print the table. The first variant must be fp32."""
    base = recipe.load(recipe.DEFAULT_LLM_RECIPE)
    checkpoint = sources.resolve(base.source).fetch(folder, NullProgress())
    tokenizer = Tokenizer.from_file(str(checkpoint.folder / "tokenizer.json"))
    tokens = tokenizer.encode(TEXT.read_text(encoding="utf-8")).ids
    rows: dict[str, dict[str, Any]] = {}
    reference = None
    for variant in variants:
        engine = folder / variant.replace(" ", "-")
        chosen = recipe.load(recipe.DEFAULT_LLM_RECIPE, **VARIANTS[variant])
        export_step.export(checkpoint.folder, chosen, engine, folder, NullProgress(), every_position=True)
        decoder = OnnxDecoder(engine)
        value, divergence, log_probabilities = perplexity(decoder, tokens, reference)
        reference = reference or log_probabilities
        texts = answers(decoder, checkpoint, tokenizer)
        del decoder
        rows[variant] = {
            "perplexity": value,
            "divergence": divergence,
            "answers": texts,
            "right": sum(is_right(question, answer) for question, answer in texts.items()),
            "megabytes": sum(path.stat().st_size for path in engine.glob("model.onnx*")) / 1e6,
            "speed": {n: [] for n in ROWS},
        }
        print(f"{variant}: perplexity {value:.3f} of {len(tokens)} tokens", file=sys.stderr)
    for _ in range(ROUNDS):  # in turns, so that other work on the machine affects all variants alike
        for variant in variants:
            for n, rate in speed(folder / variant.replace(" ", "-")).items():
                rows[variant]["speed"][n].append(rate)
    report(rows)
    if answers_file:
        answers_file.write_text(
            json.dumps({v: row["answers"] for v, row in rows.items()}, indent=2, ensure_ascii=False)
        )


def report(rows: dict[str, dict[str, Any]]) -> None:
    """Print the table."""
    base = rows["fp32"]["perplexity"]
    print(
        "| variant | MB | perplexity | ÷ fp32 | divergence, nats | right answers | tokens/s at best, 1 / 4 / 16 rows |"
    )
    print("|---|---|---|---|---|---|---|")
    for variant, row in rows.items():
        rates = " / ".join(f"{max(row['speed'][n]):.0f}" for n in ROWS)
        print(
            f"| {variant} | {row['megabytes']:.0f} | {row['perplexity']:.3f} | {row['perplexity'] / base:.4f} "
            f"| {row['divergence']:.4f} | {row['right']} of {len(QUESTIONS)} | {rates} |"
        )


if __name__ == "__main__":
    main()
