"""Faces of a picture that can be swapped, and the reasons why others cannot."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from backends.face_swap.detection import FaceDetector, smallest_face
from backends.face_swap.geometry import Pixels, Points
from backends.face_swap.landmarks import MIRRORED, LandmarkFinder
from backends.serving.errors import InvalidValue

MIN_WIDTH = 40
"""Width in pixels of the smallest face that is swapped."""
MAX_TURN = 0.7
"""Largest turn of a face that is swapped (`Face.turn`)."""
_UPPER_LIP, _LOWER_LIP = 62, 66
_NOSE, _LEFT_JAW, _RIGHT_JAW, _LEFT_EYE, _RIGHT_EYE = 30, 2, 14, slice(36, 42), slice(42, 48)


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """A face by its 68 points, float64[68, 2]."""

    points: Points

    @property
    def width(self) -> float:
        """The distance in pixels from one side of the jaw to the other, or the height where that is larger: 0 to 16."""
        jaw = self.points[:17]
        return float((jaw.max(0) - jaw.min(0)).max())

    @property
    def turn(self) -> float:
        """How far the face is turned, from -1 to 1: 0 from the front, 1 in profile to the right of the picture.

        It compares the distances from the nose to the sides of the jaw, along the line of the eyes.
        """
        eyes = self.points[_RIGHT_EYE].mean(0) - self.points[_LEFT_EYE].mean(0)
        left = max(0.0, float((self.points[_NOSE] - self.points[_LEFT_JAW]) @ eyes))
        right = max(0.0, float((self.points[_RIGHT_JAW] - self.points[_NOSE]) @ eyes))
        return (left - right) / max(left + right, 1e-9)

    @property
    def mouth_opening(self) -> float:
        """The distance between the lips, in distances of the eyes."""
        eyes = float(np.hypot(*(self.points[_RIGHT_EYE].mean(0) - self.points[_LEFT_EYE].mean(0))))
        return float(np.hypot(*(self.points[_LOWER_LIP] - self.points[_UPPER_LIP]))) / max(eyes, 1e-9)

    def mirrored(self, width: int) -> "Face":
        """Return the face in the mirror image of its picture, which is `width` pixels wide."""
        return Face(self.points[MIRRORED] * [-1, 1] + [width, 0])


class FaceFinder:
    """Finds the faces of a picture that can be swapped. Several threads may use it."""

    def __init__(self, detector: FaceDetector, landmarks: LandmarkFinder) -> None:
        self._detector = detector
        self._landmarks = landmarks

    def find(self, pixels: Pixels, name: str, count: int, check: Callable[[], None] = lambda: None) -> list[Face]:
        """Return up to `count` faces, the largest first; there is one at least.

        `check` is called between steps, and may raise to end the search. Raises `InvalidValue`, naming the input
        `name`, if there is no face, or none that is large enough and not seen from the side.
        """
        detected = self._detector.detect(pixels, check)
        if not detected:
            needed = max(MIN_WIDTH, smallest_face((pixels.shape[1], pixels.shape[0])))
            raise InvalidValue(
                f"No face was found in the picture '{name}'. A face must be seen from the front, and be at least "
                f"{needed} pixels wide.",
                name,
            )
        large = [each for each in detected if each.side >= MIN_WIDTH]
        if not large:
            raise InvalidValue(
                f"The faces in the picture '{name}' are too small: the largest is {detected[0].side:.0f} pixels wide, "
                f"and at least {MIN_WIDTH} are needed.",
                name,
            )
        check()
        faces = [Face(self._landmarks.find(pixels, each)) for each in large[:count]]
        usable = [face for face in faces if abs(face.turn) <= MAX_TURN and face.width >= MIN_WIDTH / 2]
        if not usable:
            raise InvalidValue(
                f"The faces in the picture '{name}' are seen from the side, or cannot be made out.", name
            )
        return usable
