"""The requests of the profiles fit the tensors of the models."""

import json
import os
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks import profiles
from benchmarks.triton_direct import without_durations
from builders import config_pbtxt
from gateway.signatures import llmapi, tensorrt_llm

INPUTS = {
    "chat": config_pbtxt.TEXT_GENERATION_INPUTS,
    "embedding": config_pbtxt.EMBEDDING_INPUTS,
    "image": config_pbtxt.IMAGE_INPUTS,
}
PYTHON_TYPES = {"TYPE_STRING": str, "TYPE_BOOL": bool, "TYPE_INT32": int, "TYPE_UINT64": int}


@pytest.mark.parametrize("name", profiles.PROFILES)
def test_the_stored_requests_are_those_that_the_code_writes(name: str) -> None:
    assert (profiles.HERE / name / "data.json").read_text(encoding="utf-8") == profiles.render(name)


@pytest.mark.parametrize("name", INPUTS)
def test_requests_have_the_tensors_of_the_models(name: str) -> None:
    tensors = {tensor.name: tensor for tensor in INPUTS[name]}
    required = {tensor.name for tensor in INPUTS[name] if not tensor.optional}
    for request in profiles.load(name).requests:
        assert required <= request.keys()
        for key, value in request.items():
            # perf_analyzer needs the shape of a tensor with a variable dimension.
            is_variable = -1 in tensors[key].dims
            assert isinstance(value, dict) == is_variable
            values, shape = (value["content"], value["shape"]) if is_variable else (value, list(tensors[key].dims))
            assert [len(values)] == shape
            assert all(type(element) is PYTHON_TYPES[tensors[key].type] for element in values)


@pytest.mark.parametrize("name", profiles.PROFILES)
def test_requests_are_unique_and_have_no_template_tokens(name: str) -> None:
    requests = [json.dumps(request) for request in profiles.load(name).requests]
    assert len(set(requests)) == len(requests) >= 64
    assert not any("<|" in request or "[INST]" in request for request in requests)


def test_without_durations_removes_the_options_of_the_duration() -> None:
    assert without_durations(("-i", "grpc", "-p", "10000", "--async", "-s", "15", "-r", "6")) == (
        "-i",
        "grpc",
        "--async",
    )


def run_script(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(profiles.HERE / "run"), *arguments],
        env=os.environ | {"PERF_ANALYZER": "echo perf_analyzer", **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize("name", profiles.PROFILES)
def test_the_script_runs_perf_analyzer_at_each_concurrency(name: str) -> None:
    completed = run_script(name, "-u", "gpu:8001", "-m", "llama", STREAMS="1 64")
    lines = [line.split() for line in completed.stdout.splitlines()]
    assert [line[line.index("--concurrency-range") + 1] for line in lines] == ["1", "64"]
    for line in lines:
        assert line[0] == "perf_analyzer"
        assert set(profiles.load(name).arguments) <= set(line)
        assert Path(line[line.index("--input-data") + 1]) == profiles.HERE / name / "data.json"
        assert line[-4:] == ["-u", "gpu:8001", "-m", "llama"]


def test_the_script_prints_its_usage_for_wrong_arguments() -> None:
    for arguments in ((), ("speech",)):
        completed = run_script(*arguments)
        assert completed.returncode == 2
        assert "chat|embedding|image" in completed.stderr


@pytest.mark.parametrize(("name", "signature"), [("chat-tensorrt-llm", tensorrt_llm), ("chat-llmapi", llmapi)])
def test_requests_for_other_layouts_have_the_tensors_that_the_gateway_sends(name: str, signature: ModuleType) -> None:
    names = {key for request in profiles.load(name).requests for key in request}
    assert names <= {**signature.INPUTS, **signature.OPTIONAL_INPUTS}.keys()
