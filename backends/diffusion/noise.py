"""The random numbers that torch draws on a CPU, without torch, so that each seed gives the image it gives in diffusers.

Sources, of PyTorch: ATen/native/cpu/DistributionTemplates.h, ATen/native/cpu/avx_mathfun.h, and in ATen/core
MT19937RNGEngine.h, DistributionsHelper.h and TransformationHelper.h.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

_MIN_BLOCK_COUNT = 16
"""Count below which torch draws numbers one by one, in double precision."""

# With AVX2 or AVX-512 torch computes logarithm, sine and cosine by polynomials in float32 (from Cephes), and its
# compiler fuses their multiplications and additions; this module gives the same bits. Without them
# (ATEN_CPU_CAPABILITY=default) torch calls the C library, whose numbers differ by up to 2.3e-6.
_LOG = (
    7.0376836292e-2,
    -1.1514610310e-1,
    1.1676998740e-1,
    -1.2420140846e-1,
    1.4249322787e-1,
    -1.6668057665e-1,
    2.0000714765e-1,
    -2.4999993993e-1,
    3.3333331174e-1,
)
_LOG_2 = (-2.12194440e-4, 0.693359375)  # their sum is the logarithm of 2
_SINE = (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)
_COSINE = (2.443315711809948e-005, -1.388731625493765e-003, 4.166664568298827e-002)
_QUARTER_PI = (-0.78515625, -2.4187564849853515625e-4, -3.77489497744594108e-8)  # their sum, negated


class NoiseGenerator:
    """The numbers of successive `torch.randn(shape, generator=g)` with `g = torch.Generator("cpu").manual_seed(seed)`.

    Only the lower 32 bits of a seed matter, as in torch. Not thread-safe.
    """

    def __init__(self, seed: int) -> None:
        """`seed` is 0 or more."""
        self._bit_generator = np.random.MT19937()
        # RandomState seeds the generator as its authors and torch do; numpy's MT19937 hashes the seed first.
        seeded: Any = np.random.RandomState(seed & 0xFFFFFFFF).get_state(legacy=False)
        self._bit_generator.state = seeded
        self._spare_normal: float | None = None

    def normal(self, shape: tuple[int, ...]) -> Floats:
        """Return the next normal numbers of mean 0 and variance 1, float32 of `shape`."""
        count = math.prod(shape)
        numbers = self._one_by_one(count) if count < _MIN_BLOCK_COUNT else self._in_blocks(count)
        return numbers.reshape(shape)

    def _one_by_one(self, count: int) -> Floats:
        return np.asarray([self._next() for _ in range(count)], np.float32)

    def _next(self) -> float:
        if self._spare_normal is not None:
            number, self._spare_normal = self._spare_normal, None
            return number
        high_low = [int(word) for word in self._bit_generator.random_raw(4)]
        first, second = (((high << 32 | low) & (1 << 53) - 1) / (1 << 53) for high, low in (high_low[:2], high_low[2:]))
        radius, angle = math.sqrt(-2 * math.log1p(-second)), 2 * math.pi * first
        self._spare_normal = radius * math.sin(angle)
        return radius * math.cos(angle)

    def _in_blocks(self, count: int) -> Floats:
        whole = count - count % 16
        uniforms = self._uniforms(count)
        if whole == count:
            return _box_muller(uniforms)
        # torch draws the last 16 numbers anew and overwrites some of the block before.
        return np.concatenate([_box_muller(uniforms[:whole])[: count - 16], _box_muller(self._uniforms(16))])

    def _uniforms(self, count: int) -> Floats:
        """Return uniform numbers from 0 to below 1, of 24 bits each."""
        bits = self._bit_generator.random_raw(count) & np.uint64((1 << 24) - 1)
        uniforms: Floats = bits.astype(np.float32) * np.float32(2**-24)
        return uniforms


def _box_muller(uniforms: Floats) -> Floats:
    """Turn uniform numbers into normal ones, in blocks of 16: the first 8 of a block give radii, the others angles."""
    blocks = uniforms.reshape(-1, 2, 8)
    radius = np.sqrt(np.float32(-2) * _log(np.float32(1) - blocks[:, 0]))
    sine, cosine = _sine_and_cosine(np.float32(2 * math.pi) * blocks[:, 1])
    numbers: Floats = np.stack([radius * cosine, radius * sine], axis=1).reshape(-1)
    return numbers


def _fused(a: Floats, b: Floats | float, c: Floats | float) -> Floats:
    """Return a * b + c, rounded once: the product of two float32 is exact in float64."""
    fused: Floats = (a.astype(np.float64) * _double(b) + _double(c)).astype(np.float32)
    return fused


def _double(value: Floats | float) -> npt.NDArray[np.float64]:
    return np.asarray(value, np.float32).astype(np.float64)


def _polynomial(x: Floats, factors: tuple[float, ...]) -> Floats:
    value = np.full_like(x, factors[0])
    for factor in factors[1:]:
        value = _fused(value, x, factor)
    return value


def _log(x: Floats) -> Floats:
    """Compute `log256_ps`, for normal numbers above 0."""
    bits = x.view(np.int32)
    exponent = ((bits >> 23) - 126).astype(np.float32)
    half_to_one = (bits & ~0x7F800000 | 0x3F000000).view(np.float32)
    low = half_to_one < np.float32(math.sqrt(0.5))
    exponent = np.where(low, exponent - np.float32(1), exponent)
    x = half_to_one - np.float32(1) + np.where(low, half_to_one, np.float32(0))
    square = x * x
    y = _fused(_polynomial(x, _LOG) * x, square, exponent * np.float32(_LOG_2[0]))
    return _fused(exponent, _LOG_2[1], x + _fused(square, -0.5, y))


def _sine_and_cosine(x: Floats) -> tuple[Floats, Floats]:
    """Compute `sincos256_ps`, for angles of 0 and more."""
    octant = (x * np.float32(4 / math.pi)).astype(np.int32) + 1 & ~1
    turns = octant.astype(np.float32)
    for part in _QUARTER_PI:
        x = _fused(turns, part, x)
    square = x * x
    half = square * np.float32(0.5)
    cosine = _fused(_polynomial(square, _COSINE) * square, square, -half) + np.float32(1)
    sine = _fused(_polynomial(square, _SINE) * square, x, x)
    swapped = octant & 2 != 0
    sines, cosines = np.where(swapped, cosine, sine), np.where(swapped, sine, cosine)
    return np.where(octant & 4 != 0, -sines, sines), np.where(octant - 2 & 4 == 0, -cosines, cosines)
