"""Swaps of drawn faces, whose points are known: by warping, and by stand-ins of networks."""

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from backends.face_swap.faces import Face
from backends.face_swap.geometry import Pixels, apply
from backends.face_swap.neural_swapper import NeuralSwapper, SwapperNetworks, _align, _five_points
from backends.face_swap.patch import Patch
from backends.face_swap.warp_swapper import WarpSwapper
from tests.fakes.drawn_faces import DrawnFace, draw

SOURCE = DrawnFace(x=90, y=95, width=90, iris=(20, 160, 40), brows=0.08, hair=(30, 20, 15))
TARGET = DrawnFace(x=150, y=110, width=100, tilt=14, iris=(40, 70, 190), skin=(150, 108, 84), hair=(190, 150, 90))


def picture(*faces: DrawnFace, size: tuple[int, int] = (300, 220)) -> Pixels:
    return np.asarray(draw(size, *faces))


def face_of(drawn: DrawnFace) -> Face:
    return Face(drawn.points())


def pasted(patch: Patch, target: Pixels) -> Pixels:
    image = Image.fromarray(target)
    patch.paste(image)
    return np.asarray(image)


def colour_at(pixels: Pixels, point: NDArray[np.float64]) -> NDArray[np.float64]:
    x, y = point.astype(int)
    return pixels[y - 1 : y + 2, x - 1 : x + 2].reshape(-1, 3).mean(0)


def ring(drawn: DrawnFace) -> NDArray[np.float64]:
    """Return a point of the iris beside the pupil."""
    eye = drawn.points()[36:42].mean(0)
    return eye + np.array([0.028 * drawn.width, 0])


def test_a_face_takes_the_features_of_the_source_and_keeps_its_own_skin() -> None:
    target = picture(TARGET)
    result = pasted(WarpSwapper(picture(SOURCE), face_of(SOURCE)).swap(target, face_of(TARGET)), target)
    before, after = colour_at(target, ring(TARGET)), colour_at(result, ring(TARGET))
    assert before[2] > before[1] + 20 and after[1] > after[2], "the iris must turn from blue to green"
    brow = TARGET.points()[19] + [0, 0.03 * TARGET.width]
    assert colour_at(result, brow).mean() < colour_at(target, brow).mean() - 25, "the brows must be the dark ones"
    for cheek in (TARGET.points()[[2, 31]].mean(0), TARGET.points()[[14, 35]].mean(0)):
        assert np.abs(colour_at(result, cheek) - colour_at(target, cheek)).max() < 25
    jaw = TARGET.points()[[5, 11]].mean(0)
    assert np.abs(colour_at(result, jaw) - colour_at(target, jaw)).max() < 60


def test_what_is_no_face_does_not_change() -> None:
    target = picture(TARGET)
    result = pasted(WarpSwapper(picture(SOURCE), face_of(SOURCE)).swap(target, face_of(TARGET)), target)
    changed = (result != target).any(-1)
    points = TARGET.points()
    rows, columns = np.nonzero(changed)
    assert changed.any()
    assert columns.min() > points[:, 0].min() - 3 and columns.max() < points[:, 0].max() + 3
    assert rows.max() < points[:, 1].max() + 3 and rows.min() > points[:, 1].min() - 0.12 * TARGET.width


def test_there_is_no_seam() -> None:
    """Along the border of the changed pixels, the result continues the picture."""
    target = picture(TARGET)
    patch = WarpSwapper(picture(SOURCE), face_of(SOURCE)).swap(target, face_of(TARGET))
    result = pasted(patch, target).astype(float)
    region = target[patch.box[1] : patch.box[3], patch.box[0] : patch.box[2]].astype(float)
    border = (patch.weights > 0) & (patch.weights < 0.25)
    difference = np.abs(patch.colours - region).mean(-1)
    assert border.sum() > 50 and np.median(difference[border]) < 10
    assert np.isfinite(result).all()


def test_the_source_on_itself_stays_as_it_is() -> None:
    source = picture(SOURCE)
    result = pasted(WarpSwapper(source, face_of(SOURCE)).swap(source, face_of(SOURCE)), source)
    assert np.abs(result.astype(int) - source).mean() < 1.5


@pytest.mark.parametrize("x", [10, 290, 150])
def test_a_face_at_the_edge_of_the_picture(x: int) -> None:
    drawn = DrawnFace(x=x, y=20, width=100)
    target = picture(drawn)
    patch = WarpSwapper(picture(SOURCE), face_of(SOURCE)).swap(target, face_of(drawn))
    assert pasted(patch, target).shape == target.shape and np.isfinite(patch.colours).all()


def test_a_face_outside_the_picture_changes_nothing() -> None:
    target = picture(TARGET)
    patch = WarpSwapper(picture(SOURCE), face_of(SOURCE)).swap(target, face_of(DrawnFace(x=-400, y=90, width=90)))
    np.testing.assert_array_equal(pasted(patch, target), target)


def test_a_large_face_is_computed_at_a_bounded_size() -> None:
    drawn = DrawnFace(x=900, y=900, width=1600)
    target = np.full((1800, 1800, 3), 130, np.uint8)
    patch = WarpSwapper(picture(SOURCE), face_of(SOURCE)).swap(target, face_of(drawn))
    assert max(patch.colours.shape) < 1100 and patch.box[2] - patch.box[0] > 1700
    assert pasted(patch, target).shape == target.shape


def test_a_source_turned_to_the_other_side_is_mirrored() -> None:
    """The left iris of the source is green, the right one is not: the mirror image shows it on the right."""

    def turned(drawn: DrawnFace, by: float) -> Face:
        points = drawn.points()
        points[27:36, 0] += by * drawn.width
        return Face(points)

    pixels = picture(SOURCE).copy()
    right = SOURCE.points()[42:48].mean(0).astype(int)
    pixels[right[1] - 5 : right[1] + 6, right[0] - 5 : right[0] + 6] = (200, 30, 30)
    plain = DrawnFace(x=150, y=110, width=100)
    target = picture(plain)
    swapper = WarpSwapper(pixels, turned(SOURCE, 0.15))
    for by, is_red in ((0.15, False), (-0.15, True)):
        result = pasted(swapper.swap(target, turned(plain, by)), target)
        red, green, _ = colour_at(result, ring(plain))
        assert (red > green) == is_red


class Recorder:
    """A network that records its inputs."""

    def __init__(self, answer: NDArray[np.float32] | None = None) -> None:
        self.answer = answer
        self.inputs: list[tuple[NDArray[np.float32], ...]] = []

    def __call__(self, *inputs: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        self.inputs.append(inputs)
        return [inputs[0] if self.answer is None else self.answer]


def test_a_neural_swapper_gets_what_insightface_gives_it() -> None:
    raw = np.random.default_rng(2).normal(size=(1, 512)).astype(np.float32) * 7
    emap = np.random.default_rng(3).normal(size=(512, 512)).astype(np.float32)
    embedding, swapper = Recorder(raw), Recorder()
    networks = SwapperNetworks(embedding, swapper, emap)
    source, target = picture(SOURCE), picture(TARGET)
    patch = NeuralSwapper(networks, source, face_of(SOURCE)).swap(target, face_of(TARGET))
    ((aligned,),) = embedding.inputs
    assert aligned.shape == (1, 3, 112, 112) and aligned.min() < -0.5 and aligned.max() <= 1
    ((crop, latent),) = swapper.inputs
    assert crop.shape == (1, 3, 128, 128) and crop.min() >= 0 and crop.max() <= 1
    wanted = raw / np.linalg.norm(raw) @ emap
    np.testing.assert_allclose(latent, wanted / np.linalg.norm(wanted), atol=1e-5)
    result = pasted(patch, target).astype(int)
    assert np.abs(result - target).mean() < 2, "a network that returns the target changes nothing"


def test_the_drawn_face_comes_to_its_place() -> None:
    grey = np.full((1, 3, 128, 128), 0.25, np.float32)
    networks = SwapperNetworks(Recorder(np.ones((1, 512), np.float32)), Recorder(grey), None)
    target = picture(TARGET)
    result = pasted(NeuralSwapper(networks, picture(SOURCE), face_of(SOURCE)).swap(target, face_of(TARGET)), target)
    nose = colour_at(result, TARGET.points()[30])
    np.testing.assert_allclose(nose, 64, atol=1)
    np.testing.assert_array_equal(result[:4], target[:4])
    np.testing.assert_array_equal(result[:, -4:], target[:, -4:])


def test_faces_are_aligned_to_the_template() -> None:
    """The five points of the mean face lie within a few pixels of where ArcFace wants them."""
    for side in (112, 128):
        found = apply(_align(face_of(TARGET), side), _five_points(TARGET.points()))
        shift = 8 if side == 128 else 0
        assert (
            np.abs(
                found - np.array([[38.3, 51.7], [73.5, 51.5], [56, 71.7], [41.5, 92.4], [70.7, 92.2]]) - [shift, 0]
            ).max()
            < 5
        )
