"""The figures of a verification, for distributions with known figures."""

import math

import numpy as np
import pytest

from builders.llm.verify import TOLERANCES, compare_logits


def test_identical_logits() -> None:
    logits = np.random.default_rng(0).normal(size=(5, 7))
    figures = compare_logits([(logits, logits + 3.0)])  # a constant changes no distribution
    assert figures.divergence == pytest.approx(0, abs=1e-12)
    assert figures.logit_error == pytest.approx(0, abs=1e-12)
    assert (figures.agreement, figures.identical_answers) == (1.0, 1)
    assert figures.perplexity_ratio == pytest.approx(1.0)


def test_known_distributions() -> None:
    source = np.log([[0.5, 0.25, 0.25], [0.8, 0.1, 0.1]])
    engine = np.log([[0.25, 0.5, 0.25], [0.8, 0.1, 0.1]])
    figures = compare_logits([(source, engine), (source[1:], engine[1:])])
    first = 0.5 * math.log(2) + 0.25 * math.log(0.5)
    assert figures.divergence == pytest.approx(first / 3)
    assert figures.divergence_max == pytest.approx(first)
    assert figures.agreement == pytest.approx(2 / 3)
    assert figures.agreement_decided == pytest.approx(2 / 3), "all three are decided: 2 to 1, and twice 8 to 1"
    assert (figures.prompts, figures.positions, figures.identical_answers) == (2, 3, 1)
    assert figures.perplexity_ratio == pytest.approx(2 ** (1 / 3))


def test_undecided_positions_are_left_out_of_agreement_decided() -> None:
    source = np.log([[0.40, 0.35, 0.25], [0.70, 0.20, 0.10]])
    engine = np.log([[0.35, 0.40, 0.25], [0.70, 0.20, 0.10]])
    figures = compare_logits([(source, engine)])
    assert (figures.agreement, figures.agreement_decided, figures.identical_answers) == (0.5, 1.0, 0)


def test_nan_logits_pass_no_tolerance() -> None:
    logits = np.zeros((2, 3))
    logits[:, 1] = 1.0
    figures = compare_logits([(logits, np.full((2, 3), np.nan))])
    assert not any(figures.divergence <= tolerance.divergence for tolerance in TOLERANCES.values())
