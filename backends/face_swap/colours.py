"""The colour space CIE L*a*b*, and the light of one face on another."""

import numpy as np

from backends.face_swap.blending import blur
from backends.face_swap.geometry import Floats, Mask

_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
"""From linear sRGB, with the white point D65."""
_WHITE = _TO_XYZ.sum(1)
_CUBE_FROM = 216 / 24389
_SLOPE = 24389 / 27
_FROM_XYZ = np.linalg.inv(_TO_XYZ)

CONTRASTS = (0.85, 1.1)
"""Limits of the factor by which the contrast of lightness changes: more would turn shadows and make-up into stains."""
COLOURS = (0.5, 1.1)
"""Limits of the factor by which differences of colour change."""
_BLURS = 2


def to_lab(colours: Floats) -> Floats:
    """Convert sRGB from 0 to 255 to L*, a*, b*: float32[..., 3]."""
    values = np.clip(colours, 0, 255).astype(np.float32) / np.float32(255)
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    parts = linear @ (_TO_XYZ / _WHITE[:, None]).T.astype(np.float32)
    roots = np.where(parts > _CUBE_FROM, np.cbrt(parts), (_SLOPE * parts + 16) / 116)
    x, y, z = roots[..., 0], roots[..., 1], roots[..., 2]
    lab: Floats = np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1).astype(np.float32)
    return lab


def from_lab(lab: Floats) -> Floats:
    """Convert L*, a*, b* to sRGB from 0 to 255; colours that sRGB lacks are clipped."""
    y = (lab[..., 0] + 16) / 116
    roots = np.stack([y + lab[..., 1] / 500, y, y - lab[..., 2] / 200], -1)
    cubes = roots**3
    parts = np.where(cubes > _CUBE_FROM, cubes, (116 * roots - 16) / _SLOPE)
    linear = np.clip(parts @ (_FROM_XYZ * _WHITE).T.astype(np.float32), 0, 1)
    values = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    colours: Floats = (values * 255).astype(np.float32)
    return colours


def relight(face: Floats, model: Floats, skin: Mask, radius: int) -> Floats:
    """Return `face` in the light of `model`, both float32[height, width, 3] from 0 to 255.

    In L*a*b*, colours are parted into soft ones, the means of the skin up to `radius` pixels around, and details. The
    result has the soft colours of `model`, and the details of `face`: those of lightness with the contrast of `model`,
    those of colour at most in proportion to the colourfulness of the two lights, so that white stays white. At least
    one pixel must be `skin`.
    """
    ours, theirs = to_lab(face), to_lab(model)
    softened, soft = _soften(ours, skin, radius), _soften(theirs, skin, radius)
    details, wanted = ours - softened, theirs - soft
    spreads = wanted[skin].std(0) / np.maximum(details[skin].std(0), 0.5)
    before, after = (np.hypot(each[..., 1], each[..., 2]) for each in (softened, soft))
    colourfulness = np.minimum(after / np.maximum(before, 1), spreads[1:].min())
    details[..., 0] *= np.clip(spreads[0], *CONTRASTS)
    details[..., 1:] *= np.clip(colourfulness, *COLOURS)[..., None]
    return from_lab(soft + details)


def _soften(lab: Floats, skin: Mask, radius: int) -> Floats:
    """Return the mean of the skin around each pixel; far from it that of all skin counts more and more."""
    weight = skin[..., None].astype(np.float32)
    values = np.concatenate([lab * weight, weight], -1)
    for _ in range(_BLURS):
        values = blur(values, radius)
    small = np.float32(0.01)
    soft: Floats = (values[..., :3] + small * lab[skin].mean(0)) / (values[..., 3:] + small)
    return soft
