"""The tensors of `face_swap` on a real Triton: Triton's client and models built from packages, without the gateway."""

import io
import queue
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
import tritonclient.grpc as client
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from builders import build, recipe
from builders.face_swap.family import DEFAULT_FACE_SWAP_RECIPE
from tests.fakes.drawn_faces import DrawnFace, draw
from tests.triton.model_copies import install_copy
from tritonic.embedded import EmbeddedTriton

pytestmark = pytest.mark.triton

NAME, NEURAL, NARROW = DEFAULT_FACE_SWAP_RECIPE, "face-swap-neural", "face-swap-narrow"
SOURCE = DrawnFace(x=160, y=170, width=150)
TARGETS = (
    DrawnFace(x=130, y=160, width=120, tilt=-12, skin=(150, 105, 80), hair=(20, 16, 16), iris=(60, 35, 20), brows=0.03),
    DrawnFace(x=340, y=180, width=110, tilt=15, skin=(240, 205, 190), hair=(190, 150, 90), iris=(70, 110, 160)),
)
SOURCE_PICTURE, TARGET_PICTURE = draw((320, 320), SOURCE), draw((480, 320), *TARGETS, background=(90, 110, 90))


def encoded(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def write_neural_swapper(folder: Path) -> Path:
    """Write networks of inswapper's shapes: random features, and the target with its colours in reverse order.

    The published ones are for research alone. These show that pictures and features arrive.
    """
    folder.mkdir()
    weights = np.random.default_rng(0).normal(size=(3 * 4 * 4, 512)).astype(np.float32) / 7

    def save(
        name: str, nodes: list[Any], inputs: dict[str, list[int]], output: list[int], constants: list[Any]
    ) -> None:
        described = [helper.make_tensor_value_info(key, TensorProto.FLOAT, shape) for key, shape in inputs.items()]
        result = helper.make_tensor_value_info("output", TensorProto.FLOAT, output)
        graph = helper.make_graph(nodes, name, described, [result], constants)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), folder / name)

    pool = helper.make_node("AveragePool", ["image"], ["pooled"], kernel_shape=[28, 28], strides=[28, 28])
    flat = helper.make_node("Flatten", ["pooled"], ["flat"])
    multiply = helper.make_node("MatMul", ["flat", "weights"], ["output"])
    constants = [numpy_helper.from_array(weights, "weights")]
    save("embedding.onnx", [pool, flat, multiply], {"image": [1, 3, 112, 112]}, [1, 512], constants)
    order = numpy_helper.from_array(np.array([2, 1, 0]), "order")
    nodes = [
        helper.make_node("Gather", ["target", "order"], ["turned"], axis=1),
        helper.make_node("ReduceMean", ["source"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "none"], ["nothing"]),
        helper.make_node("Add", ["turned", "nothing"], ["output"]),
    ]
    constants = [order, numpy_helper.from_array(np.float32(0), "none")]
    constants.append(numpy_helper.from_array(np.eye(512, dtype=np.float32), "emap"))
    save("swapper.onnx", nodes, {"target": [1, 3, 128, 128], "source": [1, 512]}, [1, 3, 128, 128], constants)
    return folder


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedTriton]:
    """A Triton with a model from the packages, one with a neural swapper, and a copy with other parameters."""
    repository = tmp_path_factory.mktemp("faces")
    built = build.build(recipe.load(NAME), repository)
    assert built.metrics["difference_max"] < 1e-4 and not built.metrics["is_neural"]
    neural = write_neural_swapper(tmp_path_factory.mktemp("swapper") / "networks")
    install_copy(repository / NAME, repository, NARROW, max_faces=1, max_pixels=110_000)
    other = build.build(recipe.make(family="face_swap", name=NEURAL, source=str(neural)), repository)
    assert other.metrics["is_neural"] and (repository / NEURAL / "1" / "emap.npy").is_file()
    with EmbeddedTriton(repository) as running:
        yield running


class Swapper:
    """A stream of requests to all models."""

    def __init__(self, url: str) -> None:
        self.server = client.InferenceServerClient(url)
        self.received: queue.Queue[tuple[Any, Any]] = queue.Queue()
        self.server.start_stream(lambda result, error: self.received.put((result, error)))

    def send(self, model: str, source: bytes, target: bytes, quality: int | None, **texts: str) -> None:
        tensors = {"source": np.array([source], object), "target": np.array([target], object)}
        tensors |= {name: np.array([text.encode()], object) for name, text in texts.items()}
        if quality is not None:
            tensors["quality"] = np.array([quality], np.int32)
        inputs = []
        for name, array in tensors.items():
            inputs.append(client.InferInput(name, [1], "INT32" if name == "quality" else "BYTES"))
            inputs[-1].set_data_from_numpy(array)
        self.server.async_stream_infer(model, inputs, enable_empty_final_response=True)

    def __call__(
        self,
        model: str = NAME,
        source: Image.Image = SOURCE_PICTURE,
        target: Image.Image = TARGET_PICTURE,
        quality: int | None = None,
        **texts: str,
    ) -> tuple[Any, dict[str, Any]]:
        """Return the picture as float64[height, width, 3], and the other outputs of the last response."""
        self.send(model, encoded(source), encoded(target), quality, **texts)
        progress: list[float] = []
        while True:
            result, error = self.received.get(timeout=120)
            if error is not None:
                raise error
            outputs = {each.name: result.as_numpy(each.name)[0] for each in result.get_response().outputs}
            if "image" in outputs:
                break
            progress.append(float(outputs["progress"]))
        assert progress == sorted(progress) and len(progress) == outputs["num_faces"] + 1
        image = Image.open(io.BytesIO(outputs.pop("image")))
        return np.asarray(image.convert("RGB"), float), outputs | {"format": image.format}


@pytest.fixture(scope="module")
def swap(triton: EmbeddedTriton) -> Iterator[Swapper]:
    swapper = Swapper(triton.grpc_url)
    yield swapper
    swapper.server.stop_stream()
    swapper.server.close()


def brow(picture: Any, face: DrawnFace) -> float:
    """Return the brightness of the left brow."""
    x, y = (face.points()[19] + [0, 0.025 * face.width]).astype(int)
    return float(picture[y - 1 : y + 2, x - 1 : x + 2].mean())


def test_every_face_gets_the_features_of_the_source(swap: Swapper) -> None:
    picture, outputs = swap(output_format="webp", quality=90)
    assert outputs == {"width": 480, "height": 320, "num_faces": 2, "format": "WEBP"}
    before = np.asarray(TARGET_PICTURE, float)
    assert brow(picture, TARGETS[1]) < brow(before, TARGETS[1]) - 25, "the fair brows must be dark now"
    again, _ = swap()
    changed = np.abs(again - before).max(-1) > 0
    for face in TARGETS:
        x, y = int(face.x), int(face.y)
        assert changed[y - 20 : y + 20, x - 20 : x + 20].mean() > 0.8
    assert not changed[:60].any() and not changed[-20:].any() and not changed[:, :40].any()


def test_a_neural_swapper_draws_the_faces(swap: Swapper) -> None:
    picture, outputs = swap(NEURAL)
    assert outputs["num_faces"] == 2
    for face in TARGETS:
        x, y = (face.points()[[2, 31]].mean(0)).astype(int)
        before = np.asarray(TARGET_PICTURE, float)[y, x]
        np.testing.assert_allclose(picture[y, x], before[::-1], atol=12)


def test_the_parameters_of_a_model_hold(swap: Swapper) -> None:
    with pytest.raises(client.InferenceServerException, match=r"\[invalid_value:target\].*480 x 320 pixels"):
        swap(NARROW)
    smaller = TARGET_PICTURE.crop((0, 0, 480, 225)).resize((480, 225))
    _, outputs = swap(NARROW, target=smaller)
    assert outputs["num_faces"] == 1


@pytest.mark.parametrize("name", ["source", "target"])
def test_pictures_without_usable_faces_are_named(swap: Swapper, name: str) -> None:
    with pytest.raises(client.InferenceServerException, match=rf"\[invalid_value:{name}\] No face was found"):
        swap(**{name: Image.new("RGB", (300, 200), (90, 120, 80))})  # type: ignore[arg-type]
    small = draw((160, 160), DrawnFace(x=80, y=85, width=24))
    with pytest.raises(client.InferenceServerException, match=rf"\[invalid_value:{name}\].* (too small|was found)"):
        swap(**{name: small})  # type: ignore[arg-type]


def test_metrics(swap: Swapper, triton: EmbeddedTriton) -> None:
    def pictures() -> int:
        text = httpx.get(triton.metrics_url, trust_env=False).text
        (line,) = (line for line in text.splitlines() if line.startswith(f'face_swap_faces_total{{model="{NAME}"}}'))
        return int(float(line.rsplit(" ", 1)[1]))

    swap()
    with_one = pictures()
    swap()
    deadline = time.monotonic() + 10
    while pictures() < max(with_one, 2) + 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert pictures() >= max(with_one, 2) + 2
