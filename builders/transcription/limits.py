"""How far the networks of a built Whisper may be from transformers'."""

from collections.abc import Mapping
from typing import Any

from builders.errors import VerificationFailed
from builders.recipe import Precision

LIMITS: dict[Precision, dict[str, float]] = {
    "fp32": {
        "encoder_difference": 1e-3,
        "logit_difference": 1e-2,
        "alignment_difference": 1e-4,
        "divergence": 1e-6,
        "word_error": 0,
    },
    "fp16": {"encoder_error": 0.02, "alignment_difference": 0.05, "divergence": 1e-3, "word_error": 0.05},
    "int8": {"encoder_error": 0.25, "alignment_difference": 0.25, "divergence": 0.02, "word_error": 0.1},
}
"""Largest value of each figure of `builders.transcription.verify.compare`, by precision."""


def check(figures: Mapping[str, Any], precision: Precision) -> None:
    """Raise VerificationFailed, with the figures, if one is above its limit. Texts at fp32 must be identical."""
    over = [
        f"{name.replace('_', ' ')} {figures[name]:.3g} (at most {limit:g})"
        for name, limit in LIMITS[precision].items()
        if not figures[name] <= limit  # NaN is above every limit
    ]
    if precision == "fp32" and not figures["identical_texts"]:
        over.append("the texts differ")
    if over:
        raise VerificationFailed(
            "The engine does not transcribe as transformers does, so nothing was installed: "
            f"{', '.join(over)}, over {figures['tokens']} tokens."
        )
