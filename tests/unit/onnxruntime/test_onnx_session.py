"""The ONNX backend: sessions that match the configuration, and batching of requests."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from backends.onnxruntime.batching import BatchRunner, has_batch_dimension
from backends.onnxruntime.options import read_options
from backends.onnxruntime.session import Session
from backends.serving.execution_providers import Provider

CPU: list[Provider] = [("CPUExecutionProvider", {})]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model with a batch dimension: `total` is the sum of x's columns times `scale`, and `echo` returns `words`."""
    graph = helper.make_graph(
        [
            helper.make_node("ReduceSum", ["x", "axes"], ["sum"], keepdims=0),
            helper.make_node("Mul", ["sum", "scale"], ["total"]),
            helper.make_node("Identity", ["words"], ["echo"]),
        ],
        "graph",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "columns"]),
            helper.make_tensor_value_info("scale", TensorProto.FLOAT, ["batch"]),
            helper.make_tensor_value_info("words", TensorProto.STRING, ["batch", 1]),
        ],
        [
            helper.make_tensor_value_info("total", TensorProto.FLOAT, ["batch"]),
            helper.make_tensor_value_info("echo", TensorProto.STRING, ["batch", 1]),
        ],
        [helper.make_tensor("axes", TensorProto.INT64, [1], [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, tmp_path / "model.onnx")
    return tmp_path


def config(**changes: Any) -> dict[str, Any]:
    """The configuration that Triton passes for the model above."""
    return {
        "max_batch_size": 8,
        "input": [
            {"name": "x", "data_type": "TYPE_FP32", "dims": ["-1"]},
            {"name": "scale", "data_type": "TYPE_FP32", "dims": ["1"], "reshape": {"shape": []}},
            {"name": "words", "data_type": "TYPE_STRING", "dims": ["1"]},
        ],
        "output": [
            {"name": "total", "data_type": "TYPE_FP32", "dims": ["1"], "reshape": {}},
            {"name": "echo", "data_type": "TYPE_STRING", "dims": ["1"]},
        ],
        **changes,
    }


def open_session(folder: Path, **changes: Any) -> Session:
    changed = config(**changes)
    return Session(folder, changed, read_options(changed), CPU)


def inputs(*rows: list[float], scale: float = 1, word: bytes = b"") -> dict[str, Any]:
    return {
        "x": np.array(rows, np.float32),
        "scale": np.full(len(rows), scale, np.float32),
        "words": np.array([[word]] * len(rows), np.object_),
    }


class CountingSession:
    """A session that records the sizes of its batches."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.sizes: list[int] = []

    def __call__(self, output_names: Collection[str], inputs: Mapping[str, Any]) -> dict[str, Any]:
        self.sizes.append(len(inputs["x"]))
        return self.session.run(output_names, inputs)


def test_requests_of_one_shape_share_a_batch(folder: Path) -> None:
    run = CountingSession(open_session(folder))
    answers = BatchRunner(run, batched=True).run_all(
        [
            (["total"], inputs([1, 2], [3, 4], scale=2)),
            (["echo", "total"], inputs([1, 1, 1], word="żółć".encode())),
            (["total", "echo"], inputs([5, 6], word=b"b")),
        ]
    )
    assert run.sizes == [3, 1]
    assert [set(answer) for answer in answers if isinstance(answer, dict)] == [
        {"total"},
        {"echo", "total"},
        {"echo", "total"},
    ]
    assert [answer["total"].tolist() for answer in answers if isinstance(answer, dict)] == [[6, 14], [3], [11]]
    assert answers[1]["echo"].tolist() == [["żółć".encode()]]  # type: ignore[index]
    assert answers[2]["echo"].tolist() == [[b"b"]]  # type: ignore[index]


def test_a_request_at_fault_fails_alone(folder: Path) -> None:
    def run(output_names: Collection[str], inputs: Mapping[str, Any]) -> dict[str, Any]:
        if (inputs["x"] < 0).any():
            raise ValueError("x is below zero")
        return session.run(output_names, inputs)

    session = open_session(folder)
    good, bad, other = BatchRunner(run, batched=True).run_all(
        [(["total"], inputs([1.0])), (["total"], inputs([-1.0])), (["total"], inputs([2.0]))]
    )
    assert isinstance(good, dict) and good["total"].tolist() == [1]
    assert isinstance(bad, ValueError)
    assert isinstance(other, dict) and other["total"].tolist() == [2]


def test_an_output_without_a_batch_is_named() -> None:
    (answer,) = BatchRunner(lambda output_names, inputs: {"sum": np.zeros(3)}, batched=True).run_all(
        [(["sum"], inputs([1], [2]))]
    )
    assert isinstance(answer, ValueError)
    assert "sum" in str(answer)


def test_without_a_batch_dimension_each_request_runs_alone(folder: Path) -> None:
    run = CountingSession(open_session(folder))
    answers = BatchRunner(run, batched=False).run_all([(["total"], inputs([1.0])), (["total"], inputs([2.0]))])
    assert run.sizes == [1, 1]
    assert [answer["total"].tolist() for answer in answers if isinstance(answer, dict)] == [[1], [2]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input": config()["input"][:2]}, "input words"),
        ({"input": [*config()["input"], {"name": "y", "data_type": "TYPE_FP32", "dims": ["1"]}]}, "no input y"),
        ({"output": [{"name": "total", "data_type": "TYPE_FP16", "dims": ["1"], "reshape": {}}]}, "total.*TYPE_FP16"),
        ({"output": [{"name": "echo", "data_type": "TYPE_STRING", "dims": ["2"]}]}, r"echo.*\[-1, 2\]"),
        ({"output": [{"name": "total", "data_type": "TYPE_FP32", "dims": ["1"]}]}, r"total.*\[-1, 1\]"),
        ({"max_batch_size": 0}, r"x.*\[-1\]"),
        ({"default_model_filename": "other.onnx"}, "other.onnx is missing"),
        ({"parameters": {"execution_mode": {"string_value": "2"}}}, "execution_mode"),
        ({"parameters": {"intra_op_thread_count": {"string_value": "many"}}}, "intra_op_thread_count"),
        ({"parameters": {"enable_mem_arena": {"string_value": "maybe"}}}, "enable_mem_arena"),
    ],
)
def test_mismatching_declarations_are_refused_by_name(folder: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        open_session(folder, **changes)


def test_a_session_takes_all_options_together(folder: Path) -> None:
    values = {
        "intra_op_thread_count": "1",
        "inter_op_thread_count": "2",
        "execution_mode": "1",
        "enable_mem_arena": "0",
        "enable_mem_pattern": "false",
        "memory.enable_memory_arena_shrinkage": "cpu:0",
        "session.use_device_allocator_for_initializers": "1",
        "component": "painter",
        "colour": "red",
    }
    changed = config(
        parameters={name: {"string_value": value} for name, value in values.items()},
        optimization={"graph": {"level": "1"}},
    )
    options = read_options(changed)
    assert (options.intra_op_threads, options.inter_op_threads, options.is_parallel) == (1, 2, True)
    assert (options.memory_arena, options.memory_pattern, options.graph_level) == (False, False, 1)
    assert options.unknown_parameters == ("colour",)
    del changed["parameters"]["memory.enable_memory_arena_shrinkage"]  # without an arena there is nothing to shrink
    session = Session(folder, changed, read_options(changed), CPU)
    assert session.run(["total"], inputs([1.0, 2.0]))["total"].tolist() == [3]
    assert has_batch_dimension(changed)


def test_the_model_file_may_be_a_folder(folder: Path) -> None:
    (folder / "nested").mkdir()
    (folder / "model.onnx").rename(folder / "nested" / "model.onnx")
    session = open_session(folder, default_model_filename="nested")
    assert session.run(["total"], inputs([4.0]))["total"].tolist() == [4]
