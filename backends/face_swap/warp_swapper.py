"""The swap of faces by warping: triangles, colours, and seamless blending. It needs no network of its own."""

import numpy as np
from PIL import Image

from backends.face_swap import blending
from backends.face_swap.colours import relight
from backends.face_swap.faces import Face
from backends.face_swap.geometry import Floats, Mask, Pixels, cut, sample
from backends.face_swap.patch import Patch, clip_box
from backends.face_swap.triangles import map_face, with_forehead

MAX_WIDTH = 768
"""Width in pixels at which a face is warped; wider ones are computed at this width and enlarged."""
_MEMBRANE_WIDTH = 192
"""Width in pixels of a face whose membrane is solved. It is smooth, and enlarged for wider ones."""
_MARGIN = 0.15
_EROSION = 0.035
"""Distance of the mask from the jaw and from the points above the brows, in widths of the face."""
_FEATHER = 0.035
"""Width of the transition from the picture to the face, in widths of the face."""
_LIGHT = 0.12
"""Radius of the blur that parts light from details, in widths of the face."""
_MIRROR_FROM = 0.03
"""Product of two opposite turns from which the source is mirrored: each is turned by a sixth or more."""
_SAME_OPENING = 0.5
"""Part of the target's opening of the mouth from which the source's counts as open, too."""
_MAX_DIFFERENCE = 60
"""Largest change of a level of 255 that the membrane takes over from the border: hair there is darker than skin."""


class WarpSwapper:
    """Puts one face in the place of others. Several threads may use it."""

    def __init__(self, source: Pixels, face: Face) -> None:
        """`face` lies in the picture `source`."""
        mirror = np.ascontiguousarray(source[:, ::-1])
        self._sources = ((source, face), (mirror, face.mirrored(source.shape[1])))

    def swap(self, target: Pixels, face: Face) -> Patch:
        """Return the patch that replaces `face` in the picture `target`.

        Where the two faces are turned to different sides, the mirror image of the source fits better.
        """
        source, source_face = self._sources[face.turn * self._sources[0][1].turn < -_MIRROR_FROM]
        points, source_points = with_forehead(face.points), with_forehead(source_face.points)
        box = clip_box(points, face.width * _MARGIN, target)
        shrinking = max(1.0, face.width / MAX_WIDTH)
        size = max(3, round((box[2] - box[0]) / shrinking)), max(3, round((box[3] - box[1]) / shrinking))
        region = Image.fromarray(np.ascontiguousarray(target[box[1] : box[3], box[0] : box[2]]))
        picture = np.asarray(region.resize(size, Image.Resampling.BOX), np.float32)
        factors = np.array(size) / [box[2] - box[0], box[3] - box[1]]
        here = (points - box[:2]) * factors
        width = face.width / shrinking

        source, origin, reduced = cut(source, source_points, source_face.width / width)
        mapped = map_face(here, (source_points - origin) / reduced, size)
        inside = blending.erode(mapped.inside, max(1, round(width * _EROSION)))
        if source_face.mouth_opening < _SAME_OPENING * face.mouth_opening:
            inside &= ~mapped.mouth  # the source shows no teeth to put there
        if not (inside & mapped.skin).any():
            return Patch(picture, np.zeros(picture.shape[:2], np.float32), box)
        warped = sample(source, mapped.x, mapped.y)
        warped = relight(warped, picture, inside & mapped.skin, max(1, round(width * _LIGHT)))
        warped += _membrane(picture - warped, inside, width)
        return Patch(warped, blending.feather(inside, max(1, round(width * _FEATHER))), box)


def _membrane(difference: Floats, inside: Mask, width: float) -> Floats:
    """Return what is added to a warped face so that it meets the picture; `difference` is picture minus face."""
    height, columns = inside.shape
    factor = max(1, round(width / _MEMBRANE_WIDTH))
    smooth = blending.blur(np.clip(difference, -_MAX_DIFFERENCE, _MAX_DIFFERENCE), factor)
    rows, cols = np.arange(factor // 2, height, factor), np.arange(factor // 2, columns, factor)
    small = inside[np.ix_(rows, cols)]
    small[[0, -1]] = False
    small[:, [0, -1]] = False
    membrane = blending.solve_membrane(smooth[np.ix_(rows, cols)], small)
    if factor == 1:
        return membrane
    layers = [
        Image.fromarray(np.ascontiguousarray(membrane[..., channel])).resize(
            (columns, height), Image.Resampling.BILINEAR
        )
        for channel in range(3)
    ]
    return np.stack([np.asarray(layer) for layer in layers], -1)
