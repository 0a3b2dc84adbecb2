"""What perf_analyzer is told to send is what the models take."""

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
KINDS = {"TYPE_STRING": str, "TYPE_BOOL": bool, "TYPE_INT32": int, "TYPE_UINT64": int}


@pytest.mark.parametrize("name", profiles.PROFILES)
def test_the_file_of_requests_is_the_one_that_is_written(name: str) -> None:
    assert (profiles.HERE / name / "data.json").read_text(encoding="utf-8") == profiles.render(name)


@pytest.mark.parametrize("name", INPUTS)
def test_tensors_are_those_of_the_models(name: str) -> None:
    tensors = {tensor.name: tensor for tensor in INPUTS[name]}
    required = {tensor.name for tensor in INPUTS[name] if not tensor.optional}
    for request in profiles.load(name).requests:
        assert required <= request.keys()
        for key, value in request.items():
            # With a free dimension perf_analyzer must be told the shape.
            free = -1 in tensors[key].dims
            assert isinstance(value, dict) == free
            values, shape = (value["content"], value["shape"]) if free else (value, list(tensors[key].dims))
            assert [len(values)] == shape
            assert all(type(each) is KINDS[tensors[key].type] for each in values)


@pytest.mark.parametrize("name", profiles.PROFILES)
def test_no_request_comes_twice_nor_speaks_of_a_template(name: str) -> None:
    requests = [json.dumps(request) for request in profiles.load(name).requests]
    assert len(set(requests)) == len(requests) >= 64
    assert not any("<|" in request or "[INST]" in request for request in requests)


def test_the_duration_is_taken_out_of_the_arguments() -> None:
    assert without_durations(("-i", "grpc", "-p", "10000", "--async", "-s", "15", "-r", "6")) == (
        "-i",
        "grpc",
        "--async",
    )


def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(profiles.HERE / "run"), *arguments],
        env=os.environ | {"PERF_ANALYZER": "echo perf_analyzer", **more},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize("name", profiles.PROFILES)
def test_the_script_asks_perf_analyzer_at_each_number_of_requests(name: str) -> None:
    ran = run(name, "-u", "gpu:8001", "-m", "llama", STREAMS="1 64")
    lines = [line.split() for line in ran.stdout.splitlines()]
    assert [line[line.index("--concurrency-range") + 1] for line in lines] == ["1", "64"]
    for line in lines:
        assert line[0] == "perf_analyzer"
        assert set(profiles.load(name).arguments) <= set(line)
        assert Path(line[line.index("--input-data") + 1]) == profiles.HERE / name / "data.json"
        assert line[-4:] == ["-u", "gpu:8001", "-m", "llama"]


def test_the_script_says_how_it_is_used() -> None:
    for arguments in ((), ("speech",)):
        ran = run(*arguments)
        assert ran.returncode == 2
        assert "chat|embedding|image" in ran.stderr


@pytest.mark.parametrize(("name", "signature"), [("chat-tensorrt-llm", tensorrt_llm), ("chat-llmapi", llmapi)])
def test_tensors_of_other_layouts_are_those_that_the_gateway_sends(name: str, signature: ModuleType) -> None:
    asked = {key for request in profiles.load(name).requests for key in request}
    assert asked <= {**signature.INPUTS, **signature.OPTIONAL_INPUTS}.keys()
