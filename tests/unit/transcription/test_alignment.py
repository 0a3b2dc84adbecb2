"""Times of tokens: the warping path, the median filter, and words."""

import numpy as np
import pytest

from backends.transcription.alignment import _median_filter, token_times, warp
from backends.transcription.words import split_words


def slow_path(costs: np.ndarray) -> list[tuple[int, int]]:
    """Dynamic time warping cell by cell, as openai-whisper does without its GPU kernel."""
    rows, columns = costs.shape
    total = np.full((rows + 1, columns + 1), np.inf)
    total[0, 0] = 0
    moves = np.zeros((rows + 1, columns + 1), int)
    for j in range(1, columns + 1):
        for i in range(1, rows + 1):
            options = (total[i - 1, j - 1], total[i - 1, j], total[i, j - 1])
            moves[i, j] = int(np.argmin(options))
            total[i, j] = costs[i - 1, j - 1] + options[moves[i, j]]
    i, j, path = rows, columns, []
    while i > 0 and j > 0:
        path.append((i - 1, j - 1))
        move = moves[i, j]
        i -= move != 2
        j -= move != 1
    return path[::-1]


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (7, 7), (13, 60), (40, 23)])
def test_the_path_is_that_of_the_slow_way(shape: tuple[int, int]) -> None:
    costs = np.random.default_rng(shape[1]).normal(size=shape).astype(np.float32)
    rows, columns = warp(costs)
    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == slow_path(costs)


def test_the_median_of_seven() -> None:
    rows = np.random.default_rng(2).normal(size=(5, 40)).astype(np.float32)
    padded = np.pad(rows, ((0, 0), (3, 3)), "reflect")
    expected = np.median(np.lib.stride_tricks.sliding_window_view(padded, 7, axis=1), axis=-1)
    assert np.array_equal(_median_filter(rows), expected.astype(np.float32))
    assert np.array_equal(_median_filter(rows[:, :3]), rows[:, :3])


def test_times_are_those_of_the_attention() -> None:
    """Four tokens that are heard for 0.2, 0.6, 0.2 and 0.4 s, and the end."""
    rng = np.random.default_rng(4)
    attention = rng.uniform(0, 1e-3, (3, 5, 200)).astype(np.float32)
    begins = [0, 10, 40, 50, 70]
    for number, (begin, end) in enumerate(zip(begins, [*begins[1:], 100], strict=True)):
        attention[:, number, begin:end] += 1
    times = token_times(attention, 2.0)
    assert times == pytest.approx([begin * 0.02 for begin in begins], abs=0.021)


def test_the_shortest_sounds_have_times() -> None:
    attention = np.random.default_rng(0).uniform(size=(2, 3, 100)).astype(np.float32)
    assert len(token_times(attention, 0.001)) == 3


def words(pieces: list[bytes], language: str = "en") -> list[str]:
    found = split_words(range(len(pieces)), pieces.__getitem__, language)
    assert [span.first for span in found[1:]] == [span.last for span in found[:-1]]
    for span in found:
        assert b"".join(pieces[span.first : span.last]).decode() == span.text
    return [span.text for span in found]


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([b" Ever", b" tried", b",", b" ever", b" fa", b"iled", b"."], [" Ever", " tried,", " ever", " failed."]),
        ([b" said", b' "', b"no", b'!"', b" (", b"tw", b"ice", b")"], [" said", ' "no!"', " (twice)"]),
        ([b" don", b"'t", b" stop"], [" don't", " stop"]),
        ([b"one"], ["one"]),
        ([b" a", b" -", b" b"], [" a", " - b"]),
        ([], []),
    ],
)
def test_punctuation_belongs_to_words(pieces: list[bytes], expected: list[str]) -> None:
    assert words(pieces) == expected


def test_languages_without_spaces_have_a_word_for_each_character() -> None:
    data = "你好\uff0c世界。".encode()
    pieces = [data[:2], data[2:3], data[3:6], data[6:9], data[9:12], data[12:]]
    assert words([*pieces[:5], data[12:15], data[15:]], "zh") == ["你", "好\uff0c", "世", "界。"]


def test_characters_that_two_tokens_share_are_not_cut() -> None:
    data = " Grüße".encode()
    assert words([data[:4], data[4:]], "de") == [" Grüße"]


def test_broken_characters_do_not_join_what_follows() -> None:
    found = split_words([0xE6, 0x20, 0x61, 0xC3], lambda token: bytes([token]), "en")
    assert found[0].first == 0
    assert found[-1].last == 4
