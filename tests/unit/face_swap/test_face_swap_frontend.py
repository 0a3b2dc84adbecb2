"""The backend `face_swap` without Triton and networks: faces that are refused, requests, options and loading."""

import io
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backends.face_swap.detection import Detection, FaceDetector, smallest_face
from backends.face_swap.faces import FaceFinder
from backends.face_swap.geometry import Pixels, Points
from backends.face_swap.landmarks import MIRRORED, LandmarkFinder
from backends.face_swap.options import Options, read_options
from backends.face_swap.request_frontend import FaceSwapFrontend, Request
from backends.face_swap.swapping import FaceSwapper
from backends.serving.errors import Cancelled, GenerationError, InvalidValue, Overloaded
from tests.fakes.drawn_faces import DrawnFace, draw

FACES = (DrawnFace(x=70, y=80, width=70), DrawnFace(x=210, y=80, width=60, skin=(150, 108, 84)))


class KnownFaces:
    """Stands for the detector and the landmarks: it knows where the faces of each size of picture are."""

    def __init__(self) -> None:
        self.by_width: dict[int, tuple[DrawnFace, ...]] = {300: FACES, 140: (DrawnFace(x=70, y=80, width=70),)}
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Event()

    def detect(self, pixels: Pixels, check: Callable[[], None]) -> list[Detection]:
        self.begun.set()
        assert self.gate.wait(30)
        check()
        found = [self._detection(face) for face in self.by_width.get(pixels.shape[1], ())]
        return sorted(found, key=lambda each: -each.side)

    def _detection(self, face: DrawnFace) -> Detection:
        box = np.array([face.x, face.y, face.x, face.y]) + np.array([-1, -1, 1, 1]) * face.width / 2
        return Detection(box, face.points()[[36, 45, 30, 48, 54]], 0.99)

    def find(self, pixels: Pixels, detected: Detection) -> Points:
        x, y = (detected.box[:2] + detected.box[2:]) / 2
        (face,) = (face for face in self.by_width[pixels.shape[1]] if abs(face.x - x) < 1 and abs(face.y - y) < 1)
        return face.points()


@dataclass
class Sender:
    """Records the responses of a request."""

    progress: list[float] = field(default_factory=list)
    image: tuple[bytes, tuple[int, int], int] | None = None
    error: GenerationError | None = None
    cancelled: bool = False
    ended: threading.Event = field(default_factory=threading.Event)

    def is_cancelled(self) -> bool:
        return self.cancelled

    def send_progress(self, fraction: float) -> None:
        self.progress.append(fraction)

    def send_image(self, data: bytes, size: tuple[int, int], num_faces: int) -> None:
        self.image = (data, size, num_faces)
        self.ended.set()

    def fail(self, error: GenerationError) -> None:
        self.error = error
        self.ended.set()

    def outcome(self) -> tuple[bytes, tuple[int, int], int]:
        assert self.ended.wait(30)
        if self.error:
            raise self.error
        assert self.image
        return self.image


@pytest.fixture
def known() -> KnownFaces:
    return KnownFaces()


@pytest.fixture
def frontend(known: KnownFaces) -> Iterator[FaceSwapFrontend]:
    swapper = FaceSwapper(FaceFinder(known, known))  # type: ignore[arg-type]
    running = FaceSwapFrontend(swapper, Options(max_pixels=100_000, max_waiting=1, threads=1, max_faces=4))
    yield running
    known.gate.set()
    running.close()


def encoded(image: Image.Image, form: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, form)
    return file.getvalue()


SOURCE, TARGET = encoded(draw((140, 160), FACES[0])), encoded(draw((300, 160), *FACES))


def ask(frontend: FaceSwapFrontend, **fields: Any) -> Sender:
    sender = Sender()
    frontend.add_request(Request(**{"source": SOURCE, "target": TARGET, **fields}), sender)
    return sender


def test_all_faces_of_the_target_are_swapped(frontend: FaceSwapFrontend) -> None:
    sender = ask(frontend, output_format="webp", quality=80)
    data, size, num_faces = sender.outcome()
    image = Image.open(io.BytesIO(data))
    assert (image.format, image.size, size, num_faces) == ("WEBP", (300, 160), (300, 160), 2)
    assert sender.progress == sorted(sender.progress) and len(sender.progress) == 3 and sender.progress[-1] < 1
    assert (frontend.stats.pictures, frontend.stats.faces) == (1, 2)


def test_transparency_stays(frontend: FaceSwapFrontend) -> None:
    target = draw((300, 160), *FACES).convert("RGBA")
    target.putalpha(Image.linear_gradient("L").resize(target.size))
    data, _, _ = ask(frontend, target=encoded(target)).outcome()
    result = Image.open(io.BytesIO(data))
    assert result.mode == "RGBA" and result.getchannel("A").tobytes() == target.getchannel("A").tobytes()


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"source": None}, "source", "There must be"),
        ({"target": b"no picture"}, "target", "PNG"),
        ({"output_format": "gif"}, "output_format", "png, jpeg, webp"),
        ({"quality": 101}, "quality", "0 to 100"),
        ({"target": encoded(Image.new("L", (400, 251)))}, "target", "at most 100000"),
        ({"target": encoded(Image.new("L", (20, 20)))}, "target", "No face was found in the picture 'target'"),
        ({"source": encoded(Image.new("L", (20, 20)))}, "source", "No face was found in the picture 'source'"),
    ],
)
def test_refusals(frontend: FaceSwapFrontend, fields: dict[str, Any], param: str, words: str) -> None:
    with pytest.raises(InvalidValue, match=words) as raised:
        ask(frontend, **fields).outcome()
    assert raised.value.param == param


def test_small_faces_and_profiles_are_refused_by_name(known: KnownFaces) -> None:
    finder = FaceFinder(known, known)  # type: ignore[arg-type]
    pixels = np.zeros((160, 300, 3), np.uint8)
    known.by_width[300] = (DrawnFace(x=50, y=50, width=39), DrawnFace(x=90, y=50, width=20))
    with pytest.raises(InvalidValue, match="too small: the largest is 39 pixels wide, and at least 40") as raised:
        finder.find(pixels, "source", 1)
    assert raised.value.param == "source"
    known.by_width[300] = (DrawnFace(x=70, y=80, width=70), DrawnFace(x=200, y=80, width=90))
    assert [round(face.width) for face in finder.find(pixels, "target", 5)] == [90, 70], "the largest comes first"
    assert len(finder.find(pixels, "target", 1)) == 1
    front = known.find

    def profile(pixels: Pixels, detected: Detection) -> Points:
        points = front(pixels, detected)
        points[27:36, 0] += 0.45 * detected.side
        return points

    known.find = profile  # type: ignore[method-assign]
    with pytest.raises(InvalidValue, match="seen from the side"):
        finder.find(pixels, "target", 5)


def test_the_queue_is_bounded_and_disconnects_free_it(frontend: FaceSwapFrontend, known: KnownFaces) -> None:
    known.gate.clear()
    first = ask(frontend)
    assert known.begun.wait(30)
    second = ask(frontend)
    with pytest.raises(Overloaded):
        ask(frontend).outcome()
    second.cancelled = True
    with pytest.raises(Cancelled):
        second.outcome()
    third = ask(frontend)
    first.cancelled = True
    with pytest.raises(Cancelled):
        first.outcome()
    known.gate.set()
    assert third.outcome()[2] == 2
    deadline = time.monotonic() + 10
    while frontend.stats.requests_cancelled < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert frontend.stats.pictures == 1 and frontend.stats.requests_cancelled == 2


def test_options() -> None:
    assert read_options({}) == Options() and Options(threads=3).num_threads == 3
    assert read_options({"max_faces": {"string_value": "2"}, "served_name": {"string_value": "x"}}).max_faces == 2
    with pytest.raises(ValueError, match="max_pixels"):
        read_options({"max_pixels": {"string_value": "0"}})


def test_landmarks_are_the_mean_of_a_picture_and_its_mirror_image() -> None:
    """A network that finds the same points in both is right about neither: their mean is symmetric."""
    unit = (DrawnFace(x=0.5, y=0.5, width=0.6).points() + np.array([0.05, 0])).astype(np.float32)
    face = Detection(
        np.array([100.0, 50, 200, 150]), np.array([[130.0, 90], [170, 90], [150, 110], [0, 0], [1, 1]]), 1.0
    )
    finder = LandmarkFinder(lambda *images: [np.stack([unit] * len(images[0]))])
    points = finder.find(np.zeros((300, 300, 3), np.uint8), face)
    np.testing.assert_allclose(points, points[MIRRORED] * [-1, 1] + [300, 0], atol=0.3)
    assert np.ptp(points[:17, 0]) == pytest.approx(0.6 * 105, rel=0.02)


class Sparse:
    """Stands for MTCNN's networks: it scores one window of each picture, or all of them."""

    def __init__(self, *, everything: bool = False) -> None:
        self.everything = everything
        self.sizes: list[int] = []

    def pnet(self, *images: Any) -> list[Any]:
        (image,) = images
        height, width = (image.shape[2] - 2) // 2 - 4, (image.shape[3] - 2) // 2 - 4
        scores = np.full((1, max(height, 1), max(width, 1)), 0.95 if self.everything else 0.0, np.float32)
        scores[0, 0, 0] = 0.9
        return [scores, np.zeros((1, 4, *scores.shape[1:]), np.float32)]

    def later(self, *images: Any) -> list[Any]:
        count = len(images[0])
        self.sizes.append(count)
        return [
            np.full(count, 0.99, np.float32),
            np.zeros((count, 4), np.float32),
            np.full((count, 10), 0.5, np.float32),
        ]

    def detector(self) -> FaceDetector:
        return FaceDetector({"pnet": self.pnet, "rnet": lambda *images: self.later(*images)[:2], "onet": self.later})


def test_detection_scales_back_to_the_picture() -> None:
    (face, *_) = Sparse().detector().detect(np.zeros((1500, 3000, 3), np.uint8))
    assert face.box[0] == 0 and face.side == pytest.approx(20 * 3000 / 1024)
    np.testing.assert_allclose(face.points[0], (face.box[:2] + face.box[2:]) / 2, atol=1)
    assert smallest_face((3000, 1500)) == 59 and smallest_face((300, 200)) == 20


def test_a_picture_full_of_windows_is_bounded() -> None:
    networks = Sparse(everything=True)
    started = time.process_time()
    networks.detector().detect(np.zeros((1024, 1024, 3), np.uint8))
    assert networks.sizes and max(networks.sizes) <= 1000
    assert time.process_time() - started < 20
    assert Sparse().detector().detect(np.zeros((4, 4, 3), np.uint8)) == []
    assert Sparse().detector().detect(np.zeros((1, 30_000, 3), np.uint8)) == []


def test_points_that_form_no_face_are_refused(known: KnownFaces) -> None:
    finder = FaceFinder(known, known)  # type: ignore[arg-type]
    known.find = lambda pixels, detected: np.full((68, 2), 50.0)  # type: ignore[method-assign]
    with pytest.raises(InvalidValue, match="cannot be made out"):
        finder.find(np.zeros((160, 300, 3), np.uint8), "target", 5)
