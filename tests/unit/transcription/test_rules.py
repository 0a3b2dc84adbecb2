"""The rules for the next token against transformers' processors of logits."""

import numpy as np
import pytest

from backends.transcription.rules import TokenRules, softmax_at
from tests.unit.transcription.scripted_networks import CONFIG, END, SPECIAL, VOCABULARY

FIRST = SPECIAL.timestamp_begin


def test_timestamps_follow_the_rules_of_transformers() -> None:
    import torch
    from transformers import GenerationConfig
    from transformers.generation.logits_process import WhisperTimeStampLogitsProcessor

    config = GenerationConfig(
        eos_token_id=END, bos_token_id=END, no_timestamps_token_id=SPECIAL.no_timestamps, max_initial_timestamp_index=50
    )
    reference = WhisperTimeStampLogitsProcessor(config, begin_index=3)
    rules = TokenRules(CONFIG)
    rng = np.random.default_rng(7)
    start = [SPECIAL.start_of_transcript, 258, SPECIAL.transcribe]
    num_timestamps = 0
    for _ in range(60):
        written: list[int] = []
        for _ in range(8):
            logits = rng.normal(0, 3, VOCABULARY).astype(np.float32)
            logits[FIRST:] += rng.choice([-4, 0, 4])
            expected = torch.tensor(logits)[None].clone()
            expected[:, END + 1 : FIRST] = -torch.inf  # the other special tokens are suppressed by a list
            if not written:
                expected[:, END] = -torch.inf
            scores = reference(torch.tensor([start + written]), expected).log_softmax(-1)[0]
            token, logprob = rules.choose(logits.copy(), written)
            assert token == int(scores.argmax())
            assert logprob == pytest.approx(float(scores.max()), abs=1e-4)
            num_timestamps += token >= FIRST
            if token == END:
                break
            written.append(token)
    assert num_timestamps > 100


def test_other_special_tokens_are_never_written() -> None:
    rules = TokenRules(CONFIG)
    logits = np.zeros(VOCABULARY, np.float32)
    logits[[SPECIAL.no_timestamps, SPECIAL.no_speech, 258]] = 19
    logits[END] = 9
    logits[65] = 8
    assert rules.choose(logits.copy(), [])[0] == FIRST, "the text is not empty"
    assert rules.choose(logits.copy(), [FIRST])[0] == END
    assert rules.choose(logits.copy(), [FIRST, 65])[0] == END


def test_sampling_has_the_probabilities_of_the_temperature() -> None:
    rules, random = TokenRules(CONFIG), np.random.default_rng(1)
    logits = np.full(VOCABULARY, -50, np.float32)
    logits[[10, 20]] = np.log([0.8, 0.2])
    for temperature, share in ((1.0, 0.2), (0.5, 0.04 / 0.68)):
        drawn = [rules.choose(logits.copy(), [FIRST, 1], temperature=temperature, random=random) for _ in range(2000)]
        assert {token for token, _ in drawn} == {10, 20}
        assert np.mean([token == 20 for token, _ in drawn]) == pytest.approx(share, abs=0.03)
        # The log probability does not depend on the temperature.
        assert dict(drawn)[20] == pytest.approx(np.log(0.2), abs=1e-3)


def test_softmax_of_one_token() -> None:
    logits = np.array([1000.0, 1000.0 + np.log(3)], np.float32)
    assert softmax_at(logits, 1) == pytest.approx(0.75, abs=1e-3)
