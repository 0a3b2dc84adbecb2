"""NVIDIA's perf_analyzer with the profiles of the benchmarks, against the published layouts.

The tensors are those of the profiles; the engines, which are scripts, want what they shall say in place of the texts.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import perf_analyzer, profiles
from builders.packaged_files import cache_folder
from tests.triton.foreign.scripted_requests import script
from tritonic.embedded import EmbeddedTriton

pytestmark = pytest.mark.triton

SHORTLY = ("-p", "500", "-s", "100000", "-r", "3")


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the profiles whose prompts are scripts."""
    try:
        perf_analyzer.install(cache_folder())
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"perf_analyzer could not be loaded: {error}")
    folder = tmp_path_factory.mktemp("profiles") / "profiles"
    shutil.copytree(profiles.HERE, folder)
    for data in folder.glob("chat*/data.json"):
        requests = json.loads(data.read_text())["data"]
        for request in requests:
            prompt = script("Well", " said")
            shaped = isinstance(request["text_input"], dict)
            request["text_input"] = {"content": [prompt], "shape": [1]} if shaped else [prompt]
        data.write_text(json.dumps({"data": requests}))
    return folder


@pytest.mark.parametrize(
    ("profile", "model"),
    [
        ("chat", "vllm_model"),
        ("chat-llmapi", "llmapi"),
        ("chat-tensorrt-llm", "tensorrt_llm_bls"),
        ("chat-tensorrt-llm", "ensemble"),
    ],
)
def test_perf_analyzer_runs_the_profile(
    foreign: tuple[EmbeddedTriton, Path], scripted: Path, profile: str, model: str
) -> None:
    ran = subprocess.run(
        [scripted / "run", profile, "-u", foreign[0].grpc_url, "-m", model, *SHORTLY],
        env=os.environ | {"PERF_ANALYZER": f"{sys.executable} -m benchmarks.perf_analyzer", "STREAMS": "2"},
        cwd=profiles.HERE.parents[1],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    rate = re.search(r"Throughput: ([\d.]+) infer/sec", ran.stdout)
    assert rate and float(rate[1]) > 0
