"""Drawn faces that detectors of faces find: tests and documents need no photographs of people."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

Colour = tuple[int, int, int]

# fmt: off
_MEAN_FACE = np.array([
    (-0.5, -0.271), (-0.492, -0.138), (-0.468, -0.017), (-0.437, 0.092), (-0.387, 0.21), (-0.317, 0.309),
    (-0.239, 0.379), (-0.144, 0.455), (0, 0.5), (0.144, 0.455), (0.239, 0.379), (0.317, 0.309),
    (0.387, 0.21), (0.437, 0.092), (0.468, -0.017), (0.492, -0.138), (0.5, -0.271), (-0.389, -0.378),
    (-0.33, -0.415), (-0.254, -0.422), (-0.183, -0.41), (-0.121, -0.385), (0.121, -0.385), (0.183, -0.41),
    (0.254, -0.422), (0.33, -0.415), (0.389, -0.378), (0, -0.23), (0, -0.133), (0, -0.045),
    (0, 0.032), (-0.08, 0.066), (-0.046, 0.08), (0, 0.094), (0.046, 0.08), (0.08, 0.066),
    (-0.29, -0.262), (-0.248, -0.28), (-0.183, -0.28), (-0.126, -0.246), (-0.178, -0.228), (-0.245, -0.23),
    (0.126, -0.246), (0.183, -0.28), (0.248, -0.28), (0.29, -0.262), (0.245, -0.23), (0.178, -0.228),
    (-0.18, 0.201), (-0.118, 0.185), (-0.04, 0.168), (0, 0.176), (0.04, 0.168), (0.118, 0.185),
    (0.18, 0.201), (0.117, 0.272), (0.058, 0.305), (0, 0.315), (-0.058, 0.305), (-0.117, 0.272),
    (-0.167, 0.204), (-0.055, 0.207), (0, 0.208), (0.055, 0.207), (0.167, 0.204), (0.053, 0.245),
    (0, 0.252), (-0.053, 0.245),
])
# fmt: on
"""The 68 points of the mean face of photographs, in widths of the jaw, with the middle of the face at (0, 0)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnFace:
    """A face with the middle at (`x`, `y`) and a jaw of `width` pixels; `tilt` turns it clockwise, in degrees."""

    x: float
    y: float
    width: float
    tilt: float = 0.0
    stretch: float = 1.0
    """Height of the face in heights of the mean face."""
    skin: Colour = (224, 178, 150)
    hair: Colour = (60, 40, 30)
    iris: Colour = (70, 90, 60)
    lips: Colour = (180, 80, 80)
    brows: float = 0.055
    """Thickness of the brows in widths of the face."""

    def points(self) -> npt.NDArray[np.float64]:
        """Return the 68 points, float64[68, 2]."""
        angle = np.deg2rad(self.tilt)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        return (_MEAN_FACE * [1, self.stretch]) @ turn.T * self.width + [self.x, self.y]


def draw(size: tuple[int, int], *faces: DrawnFace, background: Colour = (120, 140, 160)) -> Image.Image:
    """Return a picture of `size` (width, height) with faces."""
    scale = 2
    picture = Image.new("RGB", (size[0] * scale, size[1] * scale), background)
    for face in faces:
        _draw(picture, face, scale)
    return picture.resize(size, Image.Resampling.BOX)


def _draw(picture: Image.Image, face: DrawnFace, scale: int) -> None:
    points, width = face.points() * scale, face.width * scale
    up = (points[27] - points[8]) / np.hypot(*(points[27] - points[8]))
    right = np.array([-up[1], up[0]])
    middle = points[27]

    def shape(corners: npt.NDArray[np.float64], colour: Colour, soft: float) -> None:
        """Draw a polygon with an edge that is `soft` widths of the face wide."""
        mask = Image.new("L", picture.size)
        ImageDraw.Draw(mask).polygon([tuple(each) for each in corners], fill=255)
        picture.paste(
            Image.new("RGB", picture.size, colour), (0, 0), mask.filter(ImageFilter.GaussianBlur(soft * width))
        )

    def ellipse(centre: npt.NDArray[np.float64], half: tuple[float, float]) -> npt.NDArray[np.float64]:
        angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)[:, None]
        return centre + (np.cos(angles) * right * half[0] + np.sin(angles) * up * half[1]) * width

    def shade(factor: float) -> Colour:
        return tuple(int(min(255, each * factor)) for each in face.skin)  # type: ignore[return-value]

    shape(ellipse(middle + up * 0.1 * width, (0.62, 0.72)), face.hair, 0.02)
    neck = ellipse(points[8] + up * 0.05 * width, (0.26, 0.45))
    shape(neck, shade(0.75), 0.03)
    forehead = ellipse(middle + up * 0.06 * width, (0.5, 0.45))[:20]
    shape(np.concatenate([points[:17], forehead]), shade(0.9), 0.01)
    shape(ellipse((points[8] + middle) / 2 + up * 0.15 * width, (0.34, 0.5)), shade(1.0), 0.08)
    for cheek in (points[2] * 0.55 + points[31] * 0.45, points[14] * 0.55 + points[35] * 0.45):
        shape(ellipse(cheek, (0.1, 0.1)), shade(1.1), 0.05)
    for eye, brow in ((points[36:42], points[17:22]), (points[42:48], points[22:27])):
        shape(ellipse(eye.mean(0) + up * 0.02 * width, (0.12, 0.08)), shade(0.78), 0.03)
        shape(eye + (eye - eye.mean(0)) * 0.15, (245, 240, 235), 0.004)
        shape(ellipse(eye.mean(0), (0.038, 0.038)), face.iris, 0.004)
        shape(ellipse(eye.mean(0), (0.018, 0.018)), (15, 12, 12), 0.003)
        lid = np.concatenate([eye[:4], eye[3::-1] + up * 0.025 * width])
        shape(lid, (40, 28, 24), 0.004)
        shape(np.concatenate([brow, brow[::-1] - up * face.brows * width]), face.hair, 0.008)
    shape(np.stack([points[27], points[31], points[33], points[35]]), shade(1.08), 0.03)
    for nostril in (points[32] * 0.7 + points[31] * 0.3, points[34] * 0.7 + points[35] * 0.3):
        shape(ellipse(nostril, (0.025, 0.014)), shade(0.4), 0.008)
    shape(ellipse(points[33] - up * 0.03 * width, (0.08, 0.015)), shade(0.65), 0.02)
    shape(points[48:60], face.lips, 0.008)
    shape(points[60:68], (70, 20, 24), 0.006)
