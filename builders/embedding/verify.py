"""Compare an embedding engine with its source model.

The source (transformers, fp32, its own attention) embeds each text alone, without padding. The steps after the
transformer are computed here independently, in numpy. The engine embeds texts of different lengths together, padded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from builders.checkpoint import FROM_PRETRAINED_OPTIONS
from builders.embedding.sentence_model import SentenceModel
from builders.errors import MissingDependency, VerificationFailed
from builders.progress import Progress
from builders.recipe import Precision

MAX_DIFFERENCE = {"fp32": 1e-4}
"""Largest allowed difference of one number, by precision, for embeddings of length 1; scaled for other lengths."""

MIN_COSINE: dict[Precision, float] = {"fp32": 0.999999, "int8": 0.999, "fp16": 0.9999}
"""Smallest allowed cosine between the engine's embedding and the source's, by precision."""

MAX_TEXT_TOKENS = 2048
"""Tokens of the longest text compared. The source's attention needs memory for the square of it."""

TEXTS = (
    "a",
    "The quick brown fox jumps over the lazy dog.",
    "Wie schön, daß Straßen auch Bäume haben: żółć, naïve façade, Ωμέγα.",
    "東京は日本の首都です。서울은 대한민국의 수도이다. Москва — столица России.",
    "👩‍👩‍👧‍👦 🏳️‍🌈 e\u0301 \u200d \ufeff zero-width and combining",
    "def f(x):\n\treturn {'a': [x ** 2 for x in range(10)]}  # comment",
    "https://example.org/?q=1&r=%20#top  1,234.56 € 50%",
    "Embeddings place sentences of like meaning near one another. " * 6,
    "Once upon a time, in a village at the foot of a mountain, there lived a shoemaker with his dog. " * 20,
)

Rows = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class EmbeddingMetrics:
    """Distance of an engine from its source model."""

    texts: int
    longest: int
    """Tokens of the longest text."""
    difference_max: float
    """Largest difference of one number, with embeddings scaled to length 1."""
    cosine_min: float
    fp16_cosine_min: float | None = None
    """Smallest cosine of the source model's own embeddings in fp16 arithmetic; None if the engine is not in fp16."""


def verify(
    model: SentenceModel, engine: Path, context_length: int, precision: Precision, progress: Progress
) -> EmbeddingMetrics:
    """Compare the engine in `engine` with its source, on the CPU. Raises VerificationFailed with the figures.

    onnxruntime's CPU provider computes most of an fp16 graph in fp32, with the weights in fp16. So PyTorch runs the
    transformer in fp16, too. Raises MissingDependency.
    """
    texts = _tokens(engine, min(context_length, MAX_TEXT_TOKENS))
    progress.update("running the source model", 0.0)
    theirs = _source(model, texts, progress)
    progress.update("running the engine", 0.8)
    ours = _engine(engine, texts)
    length = np.linalg.norm(theirs, axis=1, keepdims=True)
    half = _source(model, texts, progress, half=True) if precision == "fp16" else None
    figures = EmbeddingMetrics(
        texts=len(texts),
        longest=max(len(text) for text in texts),
        difference_max=float(np.abs(theirs - ours).max() / min(1.0, float(length.min())))
        if model.normalized
        else float((np.abs(theirs - ours) / length).max()),
        cosine_min=_smallest_cosine(theirs, ours),
        fp16_cosine_min=None if half is None else _smallest_cosine(theirs, half),
    )
    limit = MAX_DIFFERENCE.get(precision, np.inf)
    # Unlike Python's min, numpy's is NaN if one of the cosines is NaN, and NaN fails the comparison below.
    smallest = float(np.min([cosine for cosine in (figures.cosine_min, figures.fp16_cosine_min) if cosine is not None]))
    if not (figures.difference_max <= limit and smallest >= MIN_COSINE[precision]):
        raise VerificationFailed(
            "The engine does not answer as the source model does, so nothing was installed. Largest difference of a "
            f"number {figures.difference_max:.3g} (at most {limit:g}), smallest cosine {smallest:.6f} (at "
            f"least {MIN_COSINE[precision]:g}) over {figures.texts} texts of up to {figures.longest} tokens."
        )
    return figures


def _smallest_cosine(theirs: Rows, ours: Rows) -> float:
    lengths = np.linalg.norm(theirs, axis=1) * np.linalg.norm(ours, axis=1)
    return float(((theirs * ours).sum(1) / lengths).min())


def _tokens(engine: Path, longest: int) -> list[list[int]]:
    """Tokenise `TEXTS` and one text that fills the context with the installed tokenizer; leave out empty results."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(engine / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(longest)
    filling = " ".join(TEXTS) * (2 + longest // 200)
    found = [encoding.ids for encoding in tokenizer.encode_batch([*TEXTS, filling])]
    return [ids for ids in found if ids]


def _source(model: SentenceModel, texts: Sequence[list[int]], progress: Progress, *, half: bool = False) -> Rows:
    try:
        import torch
        from transformers import AutoModel
        from transformers.utils import logging

        from builders.embedding.network import load_dense_layers
    except ModuleNotFoundError as error:
        raise MissingDependency(error.name) from error
    logging.disable_progress_bar()
    folder, dtype = str(model.transformer.folder), torch.float16 if half else torch.float32
    transformer = AutoModel.from_pretrained(folder, dtype=dtype, **FROM_PRETRAINED_OPTIONS).eval()
    dense_layers = load_dense_layers(model)
    rows = []
    for number, text in enumerate(texts):
        with torch.inference_mode():
            states = transformer(input_ids=torch.tensor([text])).last_hidden_state[0].double().numpy()
        row = np.concatenate([pool(mode, states) for mode in model.pooling])
        for weight, bias, activation in dense_layers:
            row = weight.double().numpy() @ row + (0 if bias is None else bias.double().numpy())
            row = _activate(activation, row)
        rows.append(row / np.linalg.norm(row) if model.normalized else row)
        progress.update("running the source model", 0.1 + 0.7 * number / len(texts))
    return np.stack(rows)


def pool(mode: str, states: Rows) -> Rows:
    """Pool the states [tokens, size] of one text to [size], as sentence-transformers defines the mode."""
    count = len(states)
    place = np.arange(1, count + 1)[:, None]
    found: dict[str, Any] = {
        "cls": lambda: states[0],
        "lasttoken": lambda: states[-1],
        "max": lambda: states.max(0),
        "mean": lambda: states.mean(0),
        "mean_sqrt_len_tokens": lambda: states.sum(0) / np.sqrt(count),
        "weightedmean": lambda: (states * place).sum(0) / place.sum(),
    }
    row: Rows = found[mode]()
    return row


def _activate(name: str, row: Rows) -> Rows:
    import torch

    from builders.embedding.network import ACTIVATIONS

    activated: Rows = ACTIVATIONS[name](torch.from_numpy(row)).numpy()
    return activated


def _engine(engine: Path, texts: Sequence[list[int]]) -> Rows:
    """Embed the texts with the engine, in batches of three that mix long and short texts."""
    import onnxruntime

    try:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(str(engine / "model.onnx"), options, providers=["CPUExecutionProvider"])
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        step = -(-len(order) // 3)
        found: dict[int, Any] = {}
        for start in range(step):
            run = order[start::step]
            counts = np.array([len(texts[index]) for index in run], np.int32)
            ids = np.zeros((len(run), counts.max()), np.int64)
            for row, index in zip(ids, run, strict=True):
                row[: len(texts[index])] = texts[index]
            (rows,) = session.run(["sentence_embedding"], {"input_ids": ids, "lengths": counts})
            found |= dict(zip(run, rows, strict=True))
        rows_in_order: Rows = np.stack([found[index] for index in range(len(texts))]).astype(np.float64)
        return rows_in_order
    except Exception as error:  # onnxruntime has a class of its own for each status, with no common base
        raise VerificationFailed(
            f"onnxruntime cannot run the exported engine, so nothing was installed: {error}"
        ) from error
