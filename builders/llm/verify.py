"""Compare a text-generation engine with its source model.

The source model (transformers, fp32) answers each prompt greedily. The engine is then fed the same tokens, and both
distributions of the next token are compared at every position. So the first position where the choices differ is also
where the engine's own greedy answer would diverge from the source's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from builders.checkpoint import FROM_PRETRAINED_OPTIONS, Checkpoint
from builders.engine_targets import Device
from builders.errors import MissingDependency, SourceUnavailable, VerificationFailed
from builders.llm.onnx_decoder import OnnxDecoder
from builders.progress import Progress
from builders.recipe import Precision, Tolerance

TOLERANCES: dict[Precision, Tolerance] = {
    "fp32": Tolerance(divergence=1e-6, agreement=0.99),
    "fp16": Tolerance(divergence=1e-3, agreement=0.99),
    "int8": Tolerance(divergence=0.02, agreement=0.97),
    "int4": Tolerance(divergence=0.5, agreement=0.7),
}
"""Default tolerance by precision. `docs/models.md` has the measurements behind it."""

PROMPTS = (
    "The capital of France is",
    "Once upon a time, in a village at the foot of a mountain, there lived",
    "def factorial(n):\n    ",
    "1, 2, 3, 4, 5, 6, 7,",
    "Die Würde des Menschen ist",
    "Water boils at 100 degrees Celsius because",
)
CHAT_PROMPTS = ("What is the capital of France?", "Write one sentence about the sea.")
"""Further prompts, rendered with the checkpoint's chat template if it has one."""

NEW_TOKENS = 16
"""Tokens that are generated and compared after each prompt."""

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LogitMetrics:
    """Distance of an engine from its source model."""

    prompts: int
    positions: int
    divergence: float
    """Mean Kullback-Leibler divergence from the source's distribution to the engine's, in nats."""
    divergence_max: float
    agreement: float
    """Share of positions at which both choose the same token."""
    agreement_decided: float
    """The same share, over positions where the source's best token is at least twice as likely as the second."""
    identical_answers: int
    """Prompts whose greedy answer is the same token for token."""
    logit_error: float
    """Mean relative error: norm of the difference over norm of the source's logits, both centred on their mean."""
    perplexity_ratio: float
    """The engine's perplexity on the source's greedy answers, divided by the source's own."""


def verify(
    checkpoint: Checkpoint, engine: Path, tolerance: Tolerance, progress: Progress, device: Device = "cpu"
) -> LogitMetrics:
    """Compare the engine in `engine`, for `device`, with its source.

    Raises VerificationFailed with the figures, MissingDependency.
    """
    prompts = _prompts(checkpoint, engine)
    progress.update("running the source model", 0.0)
    source = _Source(checkpoint.folder)
    answers = []
    for i, prompt in enumerate(prompts):
        progress.update(f"running the source model, prompt {i + 1} of {len(prompts)}", 0.1 + 0.6 * i / len(prompts))
        answers.append(source.answer(prompt, NEW_TOKENS))
    del source
    progress.update("running the engine", 0.7)
    figures = compare_logits(
        list(zip((logits for _, logits in answers), _engine(engine, prompts, answers, device), strict=True))
    )
    require_tolerance(figures, tolerance, "The engine does not answer as the source model does")
    return figures


def require_tolerance(figures: LogitMetrics, tolerance: Tolerance, fault: str) -> None:
    """Raise VerificationFailed, with a message that starts with `fault`, unless the figures are within tolerance."""
    if not (figures.divergence <= tolerance.divergence and figures.agreement_decided >= tolerance.agreement):
        raise VerificationFailed(
            f"{fault}, so nothing was installed. "
            f"Divergence {figures.divergence:.3g} nats (at most {tolerance.divergence:g}), same token at "
            f"{figures.agreement_decided:.1%} of the positions where the source is decided (at least "
            f"{tolerance.agreement:.0%}) and at {figures.agreement:.1%} of all {figures.positions}, "
            f"relative error of the logits {figures.logit_error:.3g}, perplexity ratio {figures.perplexity_ratio:.3f}."
        )


def _engine(
    engine: Path, prompts: list[list[int]], answers: list[tuple[list[int], Array]], device: Device
) -> list[Array]:
    """Feed the engine the source's tokens; return its logits [positions, vocabulary] for each prompt."""
    try:
        decoder = OnnxDecoder(engine, device=device)
        found = []
        for prompt, (tokens, _) in zip(prompts, answers, strict=True):
            decoder.reset()
            ours = [decoder.step(prompt)] + [decoder.step([token]) for token in tokens[:-1]]
            found.append(np.stack(ours).astype(np.float64))
        return found
    except Exception as error:  # onnxruntime has a class of its own for each status, with no common base
        raise VerificationFailed(
            f"onnxruntime cannot run the exported engine, so nothing was installed: {error}"
        ) from error


def compare_logits(pairs: Sequence[tuple[Array, Array]]) -> LogitMetrics:
    """Compare the logits [positions, vocabulary] of source and engine, given as one pair for each prompt."""
    divergences, same, decided, errors, losses, identical = [], [], [], [], [], 0
    for theirs, ours in pairs:
        p, q = _log_softmax(theirs), _log_softmax(ours)
        divergences.append((np.exp(p) * (p - q)).sum(-1))
        chosen, choice = theirs.argmax(-1), ours.argmax(-1)
        same.append(chosen == choice)
        second, best = np.partition(theirs, -2, axis=-1)[:, -2:].T
        decided.append(best - second >= np.log(2))
        identical += bool((chosen == choice).all())
        centred = theirs - theirs.mean(-1, keepdims=True)
        difference = ours - ours.mean(-1, keepdims=True) - centred
        errors.append(np.linalg.norm(difference, axis=-1) / np.linalg.norm(centred, axis=-1))
        rows = np.arange(len(chosen))
        losses.append(p[rows, chosen] - q[rows, chosen])
    divergence, agreement, sure = np.concatenate(divergences), np.concatenate(same), np.concatenate(decided)
    return LogitMetrics(
        prompts=len(pairs),
        positions=len(divergence),
        divergence=float(divergence.mean()),
        divergence_max=float(divergence.max()),
        agreement=float(agreement.mean()),
        agreement_decided=float(agreement[sure].mean()) if sure.any() else 1.0,
        identical_answers=identical,
        logit_error=float(np.concatenate(errors).mean()),
        perplexity_ratio=float(np.exp(np.concatenate(losses).mean())),
    )


class _Source:
    """The source model in fp32."""

    def __init__(self, folder: Path) -> None:
        try:
            import torch
            from transformers import AutoModelForCausalLM
            from transformers.utils import logging
        except ModuleNotFoundError as error:
            raise MissingDependency(error.name) from error

        logging.disable_progress_bar()
        self._torch = torch
        self._model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, **FROM_PRETRAINED_OPTIONS
        ).eval()

    def answer(self, prompt: list[int], num_tokens: int) -> tuple[list[int], Array]:
        """Return the greedy tokens after a prompt, and the logits [num_tokens, vocabulary] that chose them."""
        tokens: list[int] = []
        logits = []
        past, feed = None, prompt
        with self._torch.inference_mode():
            for _ in range(num_tokens):
                out = self._model(
                    input_ids=self._torch.tensor([feed]), past_key_values=past, use_cache=True, logits_to_keep=1
                )
                past = out.past_key_values
                logits.append(out.logits[0, -1].double().numpy())
                feed = [int(logits[-1].argmax())]
                tokens += feed
        return tokens, np.stack(logits)


def _prompts(checkpoint: Checkpoint, engine: Path) -> list[list[int]]:
    """Tokenise the prompts with the installed tokenizer, so that the comparison covers the one that will serve."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(engine / "tokenizer.json"))
    encoded = [tokenizer.encode(text).ids for text in PROMPTS]
    encoded += [tokenizer.encode(text, add_special_tokens=False).ids for text in _rendered(checkpoint, engine)]
    room = checkpoint.context_length() - NEW_TOKENS
    prompts = [ids[-room:] for ids in encoded if ids and room > 0]
    if not prompts:
        raise SourceUnavailable("The tokenizer returns no tokens for the prompts of the verification.")
    return prompts


def _rendered(checkpoint: Checkpoint, engine: Path) -> list[str]:
    template = checkpoint.chat_template()
    if template is None:
        return []
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(engine / "tokenizer.json"), **checkpoint.special_tokens())
    return [
        str(
            tokenizer.apply_chat_template(
                [{"role": "user", "content": question}],
                chat_template=template,
                add_generation_prompt=True,
                tokenize=False,
            )
        )
        for question in CHAT_PROMPTS
    ]


def _log_softmax(logits: Array) -> Array:
    shifted = logits - logits.max(-1, keepdims=True)
    result: Array = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return result
