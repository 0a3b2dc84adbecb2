"""The geometry of swapped faces: transforms, sampling, boxes, triangles, blending and light."""

import numpy as np
import pytest
from numpy.typing import NDArray

from backends.face_swap import blending, boxes, colours, geometry, triangles
from backends.face_swap.faces import Face
from backends.face_swap.landmarks import MIRRORED
from backends.face_swap.patch import Patch, clip_box
from tests.fakes.drawn_faces import DrawnFace

RNG = np.random.default_rng(5)
PICTURE = RNG.integers(0, 256, (40, 50, 3), np.uint8)


def similarity(scale: float, degrees: float, x: float, y: float) -> NDArray[np.float64]:
    angle = np.deg2rad(degrees)
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.column_stack([linear, [x, y]])


@pytest.mark.parametrize("degrees", [0, 30, 179, -90])
def test_a_similarity_is_found_again(degrees: float) -> None:
    matrix = similarity(2.5, degrees, 10, -20)
    points = RNG.normal(size=(5, 2)) * 30
    found = geometry.fit_similarity(points, geometry.apply(matrix, points))
    np.testing.assert_allclose(found, matrix, atol=1e-9)
    np.testing.assert_allclose(geometry.apply(geometry.invert(matrix), geometry.apply(matrix, points)), points)
    assert geometry.scale_of(matrix) == pytest.approx(2.5)


def test_a_mirror_image_is_no_similarity() -> None:
    """A reflection would fit better, and turn a face inside out."""
    points = RNG.normal(size=(5, 2))
    found = geometry.fit_similarity(points, points * [-1, 1])
    assert np.linalg.det(found[:, :2]) > 0


def test_sampling_at_the_centres_of_pixels_returns_them() -> None:
    columns, rows = np.meshgrid(np.arange(50) + 0.5, np.arange(40) + 0.5)
    np.testing.assert_array_equal(geometry.sample(PICTURE, columns, rows), PICTURE)
    between = geometry.sample(PICTURE, np.array([3.0]), np.array([2.5]))[0]
    np.testing.assert_allclose(between, (PICTURE[2, 2].astype(float) + PICTURE[2, 3]) / 2)
    np.testing.assert_array_equal(
        geometry.sample(PICTURE, np.array([-9.0, 900]), np.array([-9.0, 900])), PICTURE[[0, -1], [0, -1]]
    )
    np.testing.assert_array_equal(geometry.sample(PICTURE[:1, :1], np.array([4.0]), np.array([4.0])), PICTURE[:1, 0])


def test_warping_reads_the_part_that_the_matrix_names() -> None:
    shifted = geometry.warp(PICTURE, similarity(1, 0, 7, 11), (20, 10))
    np.testing.assert_allclose(shifted, PICTURE[11:21, 7:27], atol=1e-3)
    turned = geometry.warp(PICTURE, similarity(1, 90, 50, 0), (40, 50))
    np.testing.assert_allclose(turned, np.rot90(PICTURE), atol=1e-3)


def test_a_shrunken_picture_is_a_mean() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    small = geometry.warp(stripes, similarity(8, 0, 0, 0), (8, 8))
    np.testing.assert_allclose(small, 100, atol=1)


def test_overlapping_boxes_give_way_to_the_best() -> None:
    found = np.array([[0, 0, 10, 10], [1, 1, 11, 11], [20, 0, 30, 10], [2, 2, 5, 5]], float)
    scores = np.array([0.8, 0.9, 0.7, 0.6])
    assert boxes.keep_best(found, scores, 0.5).tolist() == [1, 2, 3]
    assert boxes.keep_best(found, scores, 0.5, "smaller").tolist() == [1, 2]
    assert boxes.keep_best(found[:0], scores[:0], 0.5).tolist() == []
    np.testing.assert_allclose(boxes.to_squares(np.array([[0, 0, 10, 20.0]])), [[-5, 0, 15, 20]])
    np.testing.assert_allclose(
        boxes.shift(np.array([[0, 0, 10, 20.0]]), np.array([[0.1, 0, 0, -0.5]])), [[1, 0, 10, 10]]
    )


def test_triangles_map_a_face_as_a_whole() -> None:
    """All triangles follow one affine map, so every pixel of the face must."""
    points = triangles.with_forehead(DrawnFace(x=100, y=110, width=120).points())
    matrix = np.array([[1.2, 0.3, 5], [-0.1, 0.8, 40]])
    mapped = triangles.map_face(points, geometry.apply(matrix, points), (200, 220))
    rows, columns = np.nonzero(mapped.inside)
    wanted = geometry.apply(matrix, np.stack([columns, rows], 1) + 0.5)
    np.testing.assert_allclose(np.stack([mapped.x, mapped.y], -1)[rows, columns], wanted, atol=1e-3)
    area = 0.5 * abs(np.cross(points[triangles.TRIANGLES[:, 1]] - points[triangles.TRIANGLES[:, 0]],
                              points[triangles.TRIANGLES[:, 2]] - points[triangles.TRIANGLES[:, 0]])).sum()  # fmt: skip
    assert len(rows) == pytest.approx(area, rel=0.02), "the triangles overlap or leave gaps"
    assert mapped.mouth.sum() > 0 and not (mapped.mouth & mapped.skin).any()
    assert 0.7 < mapped.skin.sum() / len(rows) < 0.95


def test_faces_outside_the_picture_and_without_extent_are_no_error() -> None:
    points = triangles.with_forehead(DrawnFace(x=-500, y=90, width=120).points())
    assert not triangles.map_face(points, points, (50, 50)).inside.any()
    flat = np.full((78, 2), 20.0)
    assert not triangles.map_face(flat, flat, (50, 50)).inside.any()


def test_the_membrane_solves_the_equations() -> None:
    inside = np.zeros((14, 17), bool)
    inside[2:12, 3:14] = True
    inside[5:8, 7:9] = False
    border = RNG.normal(size=(14, 17, 2)).astype(np.float32) * 50
    numbers = np.full(inside.shape, -1)
    numbers[inside] = np.arange(inside.sum())
    matrix, right = 4 * np.eye(inside.sum()), np.zeros((inside.sum(), 2))
    for row, column in zip(*np.nonzero(inside), strict=True):
        for near in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            if inside[near]:
                matrix[numbers[row, column], numbers[near]] -= 1
            else:
                right[numbers[row, column]] += border[near]
    found = blending.solve_membrane(border, inside)
    np.testing.assert_allclose(found[inside], np.linalg.solve(matrix, right), atol=0.3)
    np.testing.assert_array_equal(found[~inside], border[~inside])


def test_the_membrane_of_a_large_mask_continues_a_plane() -> None:
    rows, columns = np.meshgrid(np.arange(150.0), np.arange(131.0), indexing="ij")
    plane = np.stack([rows, columns, rows - columns], -1).astype(np.float32)
    inside = (rows - 75) ** 2 + (columns - 65) ** 2 < 60**2
    found = blending.solve_membrane(np.where(inside[..., None], 0, plane), inside)
    assert np.abs(found - plane).max() < 2
    empty = np.zeros_like(inside)
    np.testing.assert_array_equal(blending.solve_membrane(plane, empty), plane)


def test_masks_shrink_and_fade() -> None:
    mask = np.zeros((40, 40), bool)
    mask[5:35, 5:35] = True
    assert blending.erode(mask, 3).sum() == 24 * 24
    weights = blending.feather(mask, 6)
    assert weights[~mask].max() == 0 and weights[20, 20] == pytest.approx(1)
    assert (np.diff(weights[20, 5:20]) > -1e-5).all() and weights[20, 5] < 0.3


def test_lab_has_the_published_values() -> None:
    """http://www.brucelindbloom.com: red, white and black of sRGB with the white point D65."""
    rgb = np.array([[255, 0, 0], [255, 255, 255], [0, 0, 0], [60, 130, 200]], np.float32)
    lab = colours.to_lab(rgb)
    np.testing.assert_allclose(lab[:3], np.array([[53.24, 80.09, 67.20], [100, 0, 0], [0, 0, 0]]), atol=0.05)
    np.testing.assert_allclose(colours.from_lab(lab), rgb, atol=0.1)


def test_light_moves_and_details_stay() -> None:
    """A plain face with a mole, in the light of a face that is bright on the left and dark on the right."""
    face = np.full((60, 60, 3), 150, np.float32)
    face[30:33, 30:33] = 60
    light = np.broadcast_to(np.linspace(220, 80, 60, dtype=np.float32)[None, :, None], (60, 60, 3))
    result = colours.relight(face, light, np.ones((60, 60), bool), 6)
    assert result[10, 12].mean() > result[10, 48].mean() + 60
    assert result[31, 31].mean() < result[31, 25].mean() - 30


def test_a_face_knows_its_pose() -> None:
    front = Face(DrawnFace(x=100, y=100, width=80).points())
    assert front.width == pytest.approx(80) and abs(front.turn) < 0.01
    tilted = Face(DrawnFace(x=100, y=100, width=80, tilt=40).points())
    assert abs(tilted.turn) < 0.01
    turned = front.points.copy()
    turned[27:36, 0] += 25
    assert Face(turned).turn == pytest.approx(-Face(turned).mirrored(300).turn) and Face(turned).turn > 0.5
    opened = front.points.copy()
    opened[65:68, 1] += 20
    assert Face(opened).mouth_opening > front.mouth_opening + 0.4
    np.testing.assert_allclose(front.mirrored(200).points, front.points, atol=0.2)
    assert (MIRRORED[MIRRORED] == np.arange(68)).all()


def test_a_patch_covers_its_weights() -> None:
    from PIL import Image

    picture = Image.fromarray(PICTURE)
    weights = np.zeros((5, 6), np.float32)
    weights[2:, 3:] = 1
    Patch(np.full((5, 6, 3), 300, np.float32), weights, (10, 8, 16, 13)).paste(picture)
    pasted = np.asarray(picture)
    assert (pasted[10:13, 13:16] == 255).all()
    changed = (pasted != PICTURE).any(-1)
    changed[10:13, 13:16] = False
    assert not changed.any()
    assert clip_box(np.array([[-5.5, 3.2], [900, 3.4]]), 0, PICTURE) == (0, 3, 50, 4)
    assert clip_box(np.array([[-50.0, -50]]), 2, PICTURE) == (0, 0, 1, 1)
