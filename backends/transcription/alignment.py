"""Times of tokens: the attention of the alignment heads, and dynamic time warping."""

import numpy as np
import numpy.typing as npt

from backends.transcription.log_mel import Floats

SECONDS_PER_POSITION = 0.02
"""The sound that one position of the encoder stands for."""
_FILTER_WIDTH = 7
_MEDIAN_OF_SEVEN = (
    (0, 5),
    (0, 3),
    (1, 6),
    (2, 4),
    (0, 1),
    (3, 5),
    (2, 6),
    (2, 3),
    (3, 6),
    (4, 5),
    (1, 4),
    (1, 3),
    (3, 4),
)
"""Pairs to put in order one after the other; the fourth value is the median then."""


def token_times(attention: Floats, seconds: float) -> npt.NDArray[np.float64]:
    """Return the times in seconds at which each of n tokens begins, and the end of the last: float64[n + 1].

    `attention` is float32[heads, n + 1, positions]; see `WindowResult`. `seconds` is the length of the sound.
    """
    positions = max(1, min(attention.shape[2], round(seconds / SECONDS_PER_POSITION)))
    weights = attention[:, :, :positions]
    weights = (weights - weights.mean(axis=1, keepdims=True)) / (weights.std(axis=1, keepdims=True) + 1e-9)
    # The median of each head alone, while its matrix is in the processor's cache.
    matrix = sum(_median_filter(head) for head in weights) / len(weights)
    tokens, times = warp(-np.asarray(matrix))
    begins = np.diff(tokens, prepend=-1) > 0
    found: npt.NDArray[np.float64] = times[begins] * SECONDS_PER_POSITION
    return found


def _median_filter(rows: Floats) -> Floats:
    """Return float32[rows, positions] with each value replaced by the median of seven around it."""
    half = _FILTER_WIDTH // 2
    size = rows.shape[1]
    if size <= half:
        return rows
    padded = np.pad(rows, ((0, 0), (half, half)), "reflect")
    values = [np.array(padded[:, offset : offset + size]) for offset in range(_FILTER_WIDTH)]
    for low, high in _MEDIAN_OF_SEVEN:
        smaller = np.minimum(values[low], values[high])
        np.maximum(values[low], values[high], out=values[high])
        values[low] = smaller
    return values[half]


def warp(costs: Floats) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the path of least cost through [n, m] from the first corner to the last: row and column of each step.

    All cells of an anti-diagonal are computed at once, because they depend on the two diagonals before it alone.
    """
    num_rows, num_columns = costs.shape
    # The cell (i, j) of `skewed` is the cell (i, j - i) of `costs`: a diagonal becomes a column.
    width = num_rows + num_columns - 1
    skewed = np.full((width, num_rows), np.inf)
    rows = np.arange(num_rows)
    for row in rows:
        skewed[row : row + num_columns, row] = costs[row]
    moves = np.zeros((width, num_rows), np.int8)
    before = np.full(num_rows + 1, np.inf)  # the diagonal before; entry i + 1 is row i
    before_that = np.full(num_rows + 1, np.inf)
    for diagonal in range(width):
        options = np.stack([before_that[:-1], before[:-1], before[1:]])  # from above left, above, left
        if diagonal == 0:
            options[0, 0] = 0.0
        move = options.argmin(axis=0)
        moves[diagonal] = move
        current = np.full(num_rows + 1, np.inf)
        current[1:] = skewed[diagonal] + options[move, rows]
        before_that, before = before, current
    path = []
    row, column = num_rows - 1, num_columns - 1
    while row >= 0 and column >= 0:
        path.append((row, column))
        move = moves[row + column, row]
        row -= move != 2
        column -= move != 1
    found = np.array(path[::-1], np.int64)
    return found[:, 0], found[:, 1]
