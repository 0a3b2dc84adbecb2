"""Compare a vision-language engine with its source model: same images, same tokens, both distributions.

Both get the same preprocessed tiles. Preprocessing is the backend's, whose tests compare it with transformers.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from builders.checkpoint import FROM_PRETRAINED_OPTIONS, Checkpoint
from builders.errors import MissingDependency, SourceUnavailable
from builders.llm.onnx_decoder import OnnxDecoder
from builders.llm.verify import NEW_TOKENS, Array, LogitMetrics, compare_logits, require_tolerance
from builders.progress import Progress
from builders.recipe import Tolerance
from builders.vision import idefics3

TILE_GRIDS = ((0, 0), (1, 2), (0, 0))
"""Rows and columns of tiles of each test image; 0 for an image that is not cut."""
QUESTION = "What is in the picture?"

Tiles = npt.NDArray[np.float32]


def verify(checkpoint: Checkpoint, engine: Path, tolerance: Tolerance, progress: Progress) -> LogitMetrics:
    """Compare the engine in `engine` with its source. Raises VerificationFailed with the figures, MissingDependency."""
    vision = json.loads((engine / "vision.json").read_bytes())
    prompts = _prompts(vision, engine, checkpoint.context_length())
    progress.update("running the source model on images", 0.0)
    answers = _source(checkpoint.folder, prompts)
    progress.update("running the engine on images", 0.7)
    figures = compare_logits(
        [
            (logits, _engine(engine, vision["image_token_id"], prompt, tiles, tokens))
            for (prompt, tiles), (tokens, logits) in zip(prompts, answers, strict=True)
        ]
    )
    require_tolerance(figures, tolerance, "The engine does not see as the source model does")
    return figures


def _prompts(vision: dict[str, Any], engine: Path, room: int) -> list[tuple[list[int], Tiles]]:
    """Return prompts with one image each, as token ids, and the image's tiles, float32[tiles, 3, side, side].

    `room` is the context length. Tiles are colour gradients with noise, in the range of preprocessed images.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(engine / "tokenizer.json"))
    random = np.random.default_rng(1)
    low, high = -np.array(vision["mean"]) / vision["std"], (1 - np.array(vision["mean"])) / vision["std"]
    prompts = []
    for rows, columns in TILE_GRIDS:
        text = f"User:{idefics3.image_placeholder(vision, rows, columns)}{QUESTION}\nAssistant:"
        side = vision["tile"]
        ramp = np.linspace(0, 1, side, dtype=np.float32)
        noise = random.random((rows * columns + 1, 3, side, side), np.float32)
        shares = 0.7 * random.random((rows * columns + 1, 3, 1, 1), np.float32) * ramp + 0.3 * noise
        tiles = (low[:, None, None] + (high - low)[:, None, None] * shares).astype(np.float32)
        tokens = tokenizer.encode(text).ids
        if len(tokens) + NEW_TOKENS <= room:
            prompts.append((tokens, tiles))
    if not prompts:
        raise SourceUnavailable(f"The context of {room} tokens has no room for an image and an answer.")
    return prompts


def _source(folder: Path, prompts: Sequence[tuple[list[int], Tiles]]) -> list[tuple[list[int], Array]]:
    """Return the source's greedy tokens after each prompt, and the logits [tokens, vocabulary] that chose them."""
    try:
        import torch
        from transformers import AutoModelForImageTextToText
        from transformers.utils import logging
    except ModuleNotFoundError as error:
        raise MissingDependency(error.name) from error

    logging.disable_progress_bar()
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, **FROM_PRETRAINED_OPTIONS).eval()
    answers = []
    with torch.inference_mode():
        for prompt, tiles in prompts:
            tokens: list[int] = []
            logits = []
            past, feed, seen = None, prompt, torch.from_numpy(tiles)[None]
            for _ in range(NEW_TOKENS):
                out = model(
                    input_ids=torch.tensor([feed]),
                    pixel_values=seen,
                    past_key_values=past,
                    use_cache=True,
                    logits_to_keep=1,
                )
                past, seen = out.past_key_values, None
                logits.append(out.logits[0, -1].double().numpy())
                feed = [int(logits[-1].argmax())]
                tokens += feed
            answers.append((tokens, np.stack(logits)))
    return answers


def _engine(engine: Path, image_token_id: int, prompt: list[int], tiles: Tiles, tokens: list[int]) -> Array:
    """Return the engine's logits [tokens, vocabulary] for the source's prompt and tokens."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(engine / "vision.onnx"), providers=["CPUExecutionProvider"])
    (features,) = session.run(None, {"pixel_values": tiles})
    vectors = np.load(engine / "embedding.npy", mmap_mode="r")[prompt]
    vectors[np.array(prompt) == image_token_id] = features.reshape(-1, features.shape[-1])
    decoder = OnnxDecoder(engine)
    ours = [decoder.logits_after(vectors)[-1]] + [decoder.step([token]) for token in tokens[:-1]]
    logits: Array = np.stack(ours).astype(np.float64)
    return logits
