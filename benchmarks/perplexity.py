"""What compressing the default model costs and gains: `python -m benchmarks.perplexity [VARIANT …]`.

For each variant: perplexity over two chapters of Alice in Wonderland (Lewis Carroll, 1865; in `benchmarks/data`),
divergence from fp32 at every position of them, greedy answers to ten questions, size, and the speed of the serving
engine's own forward pass. docs/decisions/0002-default-precision.md holds the numbers that the default was chosen by.
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
# Without `accuracy_level` 1: it takes thirty times as long for each token, and hours here.
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
    """Perplexity over windows of the text, mean divergence from the reference, and the log-probabilities."""
    losses: list[float] = []
    divergences: list[float] = []
    kept = []
    for start in range(0, len(tokens), WINDOW):
        window = tokens[start : start + WINDOW]
        decoder.reset()
        logits = decoder.logits(window)[:-1].astype(np.float64)
        logits -= logits.max(-1, keepdims=True)
        log = (logits - np.log(np.exp(logits).sum(-1, keepdims=True))).astype(np.float32)
        losses += (-log[np.arange(len(log)), window[1:]]).tolist()
        if reference is None:
            kept.append(log)
        else:
            theirs = reference[start // WINDOW]
            divergences += (np.exp(theirs) * (theirs - log)).sum(-1).tolist()
    return float(np.exp(np.mean(losses))), float(np.mean(divergences or [0.0])), kept


def answers(decoder: OnnxDecoder, checkpoint: Checkpoint, tokenizer: Tokenizer) -> dict[str, str]:
    """Greedy answers of at most 48 tokens."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(checkpoint.chat_template() or "")
    ends = set(checkpoint.end_token_ids())
    said = {}
    for question in QUESTIONS:
        prompt = template.render(messages=[{"role": "user", "content": question}], add_generation_prompt=True)
        decoder.reset()
        logits = decoder.step(tokenizer.encode(prompt, add_special_tokens=False).ids)
        out: list[int] = []
        while len(out) < 48 and (token := int(logits.argmax())) not in ends:
            out.append(token)
            logits = decoder.step([token])
        said[question] = tokenizer.decode(out)
    return said


def is_right(question: str, answer: str) -> bool:
    return any(word in answer.lower() for word in QUESTIONS[question].split("|"))


def speed(engine: Path) -> dict[int, float]:
    """Tokens a second of the serving engine's forward pass, 32 steps after 128 tokens, for 1, 4 and 16 rows."""
    from backends.llm.ort.decoder_config import read_decoder_config
    from backends.llm.ort.model_runner import OrtModelRunner

    forward = OrtModelRunner(read_decoder_config(engine), max_rows=max(ROWS), context_length=512, threads=0)
    prompt = np.random.default_rng(0).integers(100, 40_000, 128)
    first = int(forward.prefill(0, prompt, 0).argmax())
    for row in range(1, max(ROWS)):
        forward.copy(0, row, 0, len(prompt))
    measured = {}
    for rows in ROWS:
        tokens = np.full(rows, first)
        lengths = np.full(rows, len(prompt))
        started = time.perf_counter()
        for _ in range(STEPS):
            tokens = forward.decode(tokens, lengths).argmax(-1)
            lengths = lengths + 1
        measured[rows] = STEPS * rows / (time.perf_counter() - started)
    forward.close()
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("variants", nargs="*", default=list(VARIANTS), help=f"of: {', '.join(VARIANTS)}")
    parser.add_argument("--answers", type=Path, help="write every answer to this JSON file")
    wanted = parser.parse_args()
    variants = list(dict.fromkeys(["fp32", *wanted.variants]))
    with tempfile.TemporaryDirectory(prefix="perplexity-") as name:
        measure(variants, Path(name), wanted.answers)


def measure(variants: list[str], folder: Path, answers_file: Path | None) -> None:
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
        value, divergence, kept = perplexity(decoder, tokens, reference)
        reference = reference or kept
        said = answers(decoder, checkpoint, tokenizer)
        del decoder
        rows[variant] = {
            "perplexity": value,
            "divergence": divergence,
            "answers": said,
            "right": sum(is_right(question, answer) for question, answer in said.items()),
            "megabytes": sum(path.stat().st_size for path in engine.glob("model.onnx*")) / 1e6,
            "speed": {n: [] for n in ROWS},
        }
        print(f"{variant}: perplexity {value:.3f} of {len(tokens)} tokens", file=sys.stderr)
    for _ in range(ROUNDS):  # interleaved, so that a busy moment of the machine hits every variant alike
        for variant in variants:
            for n, rate in speed(folder / variant.replace(" ", "-")).items():
                rows[variant]["speed"][n].append(rate)
    report(rows)
    if answers_file:
        answers_file.write_text(
            json.dumps({v: row["answers"] for v, row in rows.items()}, indent=2, ensure_ascii=False)
        )


def report(rows: dict[str, dict[str, Any]]) -> None:
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
