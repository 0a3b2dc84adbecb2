"""Where the network of an embedding model runs: on a CPU, on a GPU, or in another model of the same Triton."""

import queue
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from backends.embedding.batch_window import choose_batch_window
from backends.embedding.encoder import ComponentEncoder, OrtEncoder
from backends.embedding.loading import batch_limits, load_encoder, num_threads
from backends.embedding.options import Options, read_options
from backends.embedding.scheduler import BatchLimits, EmbeddingJob, EmbeddingScheduler
from tests.unit.embedding.conftest import ScriptedEncoder

PLAIN = {"context_length": "12", "dimensions": "1"}
PLAN = PLAIN | {"engine": "tensorrt", "encoder": "tiny-encoder", "vocab_size": "9", "max_batch_texts": "3"}


def options(values: Mapping[str, str]) -> Options:
    return read_options({name: {"string_value": value} for name, value in values.items()})


class RecordingComponents:
    """Answers as the network of `folder` does, and records the shapes of the inputs."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, tuple[int, ...]]]] = []

    def run(self, name: str, inputs: Mapping[str, Any], outputs: Sequence[str]) -> dict[str, Any]:
        assert outputs == ["sentence_embedding"]
        assert {key: value.dtype for key, value in inputs.items()} == {"input_ids": np.int64, "lengths": np.int32}
        self.calls.append((name, {key: value.shape for key, value in inputs.items()}))
        return {"sentence_embedding": inputs["lengths"][:, None].astype(np.float64)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A network whose embedding of a text is its length."""
    nodes = [
        helper.make_node("Cast", ["lengths"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["numbers", "axis"], ["sentence_embedding"]),
        helper.make_node("Identity", ["input_ids"], ["unused"]),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [
            helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["texts", "tokens"]),
            helper.make_tensor_value_info("lengths", TensorProto.INT32, ["texts"]),
        ],
        [helper.make_tensor_value_info("sentence_embedding", TensorProto.FLOAT, ["texts", 1])],
        [helper.make_tensor("axis", TensorProto.INT64, [1], [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    model.metadata_props.add(key="vocab_size", value="9")
    onnx.save(model, tmp_path / "model.onnx")
    return tmp_path


def tokens(*lengths: int) -> list[Any]:
    return [np.arange(length, dtype=np.int64) for length in lengths]


def test_an_instance_on_a_cpu_runs_the_file_there(folder: Path) -> None:
    encoder = load_encoder(folder, {}, options(PLAIN), "CPU", "0", RecordingComponents)
    assert isinstance(encoder, OrtEncoder)
    assert encoder.embed(tokens(3, 1)).tolist() == [[3], [1]]
    assert batch_limits(options(PLAIN), "CPU") == BatchLimits(512, 64, 0)


def test_an_instance_on_a_gpu_needs_the_cuda_provider(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"CUDAExecutionProvider is configured.*Install onnxruntime-gpu.*KIND_CPU"):
        load_encoder(folder, {}, options(PLAIN), "GPU", "0", RecordingComponents)


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_no_network_moves_to_the_cpu_in_silence(folder: Path) -> None:
    providers = [("CUDAExecutionProvider", {"device_id": "0"}), ("CPUExecutionProvider", {})]
    with pytest.raises(ValueError, match="could not load CUDAExecutionProvider, and would run the model on CPUExec"):
        OrtEncoder(folder, providers)


def test_a_plan_is_called_by_its_name_with_padded_texts(folder: Path) -> None:
    components = RecordingComponents()
    encoder = load_encoder(folder / "none", {}, options(PLAN), "CPU", "0", lambda: components)
    assert isinstance(encoder, ComponentEncoder)
    embeddings = encoder.embed(tokens(2, 5))
    assert embeddings.dtype == np.float32 and embeddings.tolist() == [[2], [5]]
    assert encoder.vocab_size == 9
    assert components.calls == [("tiny-encoder", {"input_ids": (2, 5), "lengths": (2,)})]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (PLAN | {"encoder": ""}, "The parameter encoder is missing"),
        (PLAN | {"vocab_size": "0"}, "The parameter vocab_size is 0"),
        (PLAN | {"engine": "abacus"}, "onnxruntime, tensorrt"),
        (PLAN | {"max_batch_texts": "-1"}, "The parameter max_batch_texts"),
    ],
)
def test_faulty_parameters_are_named(values: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        options(values)


def test_a_gpu_gets_few_large_batches() -> None:
    assert batch_limits(options(PLAIN), "GPU") == BatchLimits(16_384, 16_384, 0)
    assert batch_limits(options(PLAN | {"max_batch_tokens": "700"}), "CPU") == BatchLimits(700, 700, 3)
    assert (num_threads(options(PLAIN), "GPU"), num_threads(options(PLAN | {"threads": "5"}), "CPU")) == (2, 5)


def test_a_batch_has_no_more_texts_than_its_limit() -> None:
    assert choose_batch_window([5] * 9, 8, 512, 0.05, 3) == (6, 9)
    assert choose_batch_window([5] * 9, 0, 512, 0.05, 1) == (0, 1)
    encoder = ScriptedEncoder()
    answers: queue.Queue[Any] = queue.Queue()
    scheduler = EmbeddingScheduler(encoder, 1, limits=BatchLimits(512, 512, 3))
    try:
        scheduler.submit(EmbeddingJob(tokens(4, 4, 4, 4, 4, 4, 4), answers.put, answers.put))
        assert answers.get(timeout=60).shape == (7, 4)
    finally:
        scheduler.close()
    assert [len(run) for run in encoder.runs] == [3, 3, 1]
