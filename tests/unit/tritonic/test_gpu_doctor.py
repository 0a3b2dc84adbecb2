"""`tritonic doctor --gpu` over a scripted `nvidia-smi` that prints what real ones print."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from builders import gpu as gpus
from builders import manifest
from builders import recipe as recipes
from builders.gpu import GpuQueryFailed
from tritonic import gpu_doctor
from tritonic.cli import app
from tritonic.findings import Finding

H200 = "0, NVIDIA H200, 570.133.20, 9.0, 143771, 143158"
A100S = "0, NVIDIA A100-SXM4-40GB, 525.85.12, 8.0, 40960, 40536\n1, NVIDIA A100-SXM4-40GB, 525.85.12, 8.0, 40960, 3"
T4 = "0, Tesla T4, 550.54.15, 7.5, 15360, 14930"
GB10 = "0, NVIDIA GB10, 580.95.05, 12.1, [N/A], [N/A]"
NO_DRIVER = (
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest NVIDIA "
    "driver is installed and running.\n"
)
VERSION = """NVIDIA-SMI version  : 570.133.20
NVML version        : 570.133
DRIVER version      : 570.133.20
CUDA Version        : 12.8
"""
TABLE = """Mon Nov 30 12:00:00 2026
+-----------------------------------------------------------------------------+
| NVIDIA-SMI 525.85.12    Driver Version: 525.85.12    CUDA Version: 12.0     |
|-------------------------------+----------------------+----------------------+
"""
SCRIPT = """
import json, sys
answers = json.loads({answers!r})
query = any(argument.startswith("--query-gpu=index,name,driver_version,compute_cap,") for argument in sys.argv)
text, status = answers["query" if query else "version" if "--version" in sys.argv else "table"]
print(text, end="")
sys.exit(status)
"""


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put a program `nvidia-smi` on the path, with its answers and exit statuses."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=":")

    def write(query: str, status: int = 0, version: tuple[str, int] = (VERSION, 0)) -> None:
        answers = {"query": (query, status), "version": version, "table": (TABLE, 0)}
        program = folder / "nvidia-smi"
        program.write_text(f"#!{sys.executable}\n{SCRIPT.format(answers=json.dumps(answers))}")
        program.chmod(0o755)

    return write


def by_subject(findings: Iterator[Finding]) -> dict[str, Finding]:
    return {finding.what: finding for finding in findings}


def test_gpus_are_listed_with_memory_capability_and_cuda(nvidia_smi: Callable[..., None], tmp_path: Path) -> None:
    nvidia_smi(H200)
    found = by_subject(gpu_doctor.diagnose_gpus(tmp_path))
    assert found["GPU 0"] == Finding("GPU 0", "good", "NVIDIA H200, compute capability 9.0, 139.8 of 140.4 GB free")
    assert found["CUDA"].detail == "the driver 570.133.20 runs CUDA up to 12.8"
    nvidia_smi(A100S, version=("Invalid combination of input arguments.\n", 2))
    found = by_subject(gpu_doctor.diagnose_gpus(tmp_path))
    assert found["GPU 1"].detail.endswith("0.0 of 40.0 GB free")
    assert found["CUDA"].detail == "the driver 525.85.12 runs CUDA up to 12.0", "older ones tell it in their table"
    nvidia_smi(GB10)
    assert by_subject(gpu_doctor.diagnose_gpus(tmp_path))["GPU 0"].detail.endswith("12.1, memory unknown")


@pytest.mark.parametrize(
    ("answer", "status", "message"),
    [
        (NO_DRIVER, 9, "couldn't communicate with the NVIDIA driver"),
        ("No devices were found\n", 6, "No devices were found"),
        ('Field "compute_cap" is not a valid field to query.\n', 2, "not a valid field to query"),
        ("", 3, "status 3"),
        ("nonsense", 0, "answered 'nonsense'"),
    ],
)
def test_a_failing_nvidia_smi_is_quoted(
    answer: str, status: int, message: str, nvidia_smi: Callable[..., None], tmp_path: Path
) -> None:
    nvidia_smi(answer, status)
    with pytest.raises(GpuQueryFailed, match=message):
        gpus.find_gpus()
    finding = next(gpu_doctor.diagnose_gpus(tmp_path))
    assert (finding.what, finding.state) == ("GPU", "missing")
    assert message in finding.detail
    assert gpus.compute_capabilities() == []


def test_a_machine_without_nvidia_smi_has_no_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GpuQueryFailed, match="not installed"):
        gpus.find_gpus()
    assert gpus.cuda_version() is None


@pytest.fixture
def everything_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    always = gpu_doctor.Need(lambda: True, "")
    for name in ("MODELOPT", "VLLM", "LLM_API", "TRTLLM_BUILD", "TRTLLM_BACKEND", "TENSORRT", "ONNXRUNTIME"):
        monkeypatch.setattr(gpu_doctor, name, always)
    complete = [
        gpu_doctor.TargetNeeds(needs.target, needs.capability, (always,), (always,), needs.compiles)
        for needs in gpu_doctor.TARGETS
    ]
    monkeypatch.setattr(gpu_doctor, "TARGETS", complete)


@pytest.mark.usefixtures("everything_installed")
@pytest.mark.parametrize(
    ("answer", "served", "formats"),
    [
        (H200, {"cuda", "vllm", "llmapi", "tensorrt_llm", "tensorrt"}, "fp8, int4_awq, w4a8_awq, int8_sq"),
        (A100S, {"cuda", "vllm", "llmapi", "tensorrt_llm", "tensorrt"}, "int4_awq, int8_sq"),
        (T4, {"cuda", "vllm", "tensorrt"}, None),
        (GB10, {"cuda", "vllm", "llmapi", "tensorrt_llm", "tensorrt"}, "fp8, nvfp4, int4_awq, w4a8_awq, int8_sq"),
    ],
)
def test_the_compute_capability_decides_what_is_served(
    answer: str, served: set[str], formats: str | None, nvidia_smi: Callable[..., None], tmp_path: Path
) -> None:
    nvidia_smi(answer)
    found = by_subject(gpu_doctor.diagnose_gpus(tmp_path))
    targets = {name: finding for name, finding in found.items() if name.startswith("`tritonic build")}
    assert len(targets) == 8
    good = {name.rstrip("`").split()[-1] for name, finding in targets.items() if finding.state == "good"}
    assert good == served
    for name, finding in targets.items():
        if finding.state == "note":
            assert "cannot be served here" in finding.detail and "GPU of compute capability" in finding.remedy, name
    assert (f"compute in {formats}" in found["`--quantization`"].detail) == (formats is not None)


def test_packages_are_sought_where_the_models_find_them(
    nvidia_smi: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = tmp_path / "cuda" / "lib" / "python3.11" / "site-packages"
    (packages / "vllm").mkdir(parents=True)
    (packages / "vllm" / "__init__.py").touch()
    (packages / "onnxruntime_gpu-1.31.1.dist-info").mkdir()
    (packages / "onnxruntime_gpu-1.31.1.dist-info" / "METADATA").write_text("Name: onnxruntime-gpu\nVersion: 1.31.1\n")
    nvidia_smi(H200, version=(VERSION.replace("12.8", "13.0"), 0))
    onnx, vllm = "`tritonic build chat --target onnx --device cuda`", "`tritonic build chat --target vllm`"
    found = by_subject(gpu_doctor.diagnose_gpus(tmp_path))
    assert "onnxruntime-gpu" in found[onnx].remedy and "vllm" in found[vllm].remedy
    monkeypatch.setenv("TRITONIC_MODEL_ENVIRONMENT", str(tmp_path / "cuda"))
    found = by_subject(gpu_doctor.diagnose_gpus(tmp_path))
    assert (found[onnx].state, found[vllm].state) == ("good", "good")
    nvidia_smi(H200)
    found = by_subject(gpu_doctor.diagnose_gpus(tmp_path))
    assert found[onnx].remedy == "Missing: a driver that runs CUDA 13, for which onnxruntime-gpu 1.31 is compiled."
    assert found[vllm].state == "good"


def test_what_a_target_lacks_is_named(nvidia_smi: Callable[..., None], tmp_path: Path) -> None:
    nvidia_smi(H200)
    found = by_subject(gpu_doctor.diagnose_gpus(tmp_path))
    engine = found["`tritonic build chat --target tensorrt_llm`"]
    assert engine.detail == "cannot be built here; cannot be served here"
    for missing in ("ModelOpt", "the command trtllm-build", "backend tensorrtllm"):
        assert missing in engine.remedy
    assert "GPU" not in engine.remedy
    assert found["`tritonic build chat --target vllm`"].detail.startswith("can be built here")
    for kind in ("chat", "image", "embedding"):
        onnx = found[f"`tritonic build {kind} --target onnx --device cuda`"]
        assert onnx.detail == "can be built here; cannot be served here" and "onnxruntime-gpu" in onnx.remedy
    for kind in ("image", "embedding"):
        plan = found[f"`tritonic build {kind} --target tensorrt`"]
        assert "package tensorrt" in plan.remedy and "backend tensorrt" in plan.remedy


def write_engine(repository: Path, name: str, capabilities: list[str] | None) -> None:
    (repository / name / "1").mkdir(parents=True)
    (repository / name / "1" / "rank0.engine").write_bytes(b"engine")
    record = {} if capabilities is None else {"compute_capabilities": capabilities}
    (repository / name / manifest.FILE_NAME).write_text(json.dumps(record))


def test_engine_files_are_matched_with_the_gpus(nvidia_smi: Callable[..., None], tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    write_engine(repository, "fits", ["9.0"])
    write_engine(repository, "foreign", ["8.0"])
    write_engine(repository, "old", None)
    # The steps of an ensemble and the parts of a pipeline have the BUILD.json of their model.
    (repository / "whole").mkdir()
    record = {"compute_capabilities": ["8.9"], "parts": {"part": {}}}
    (repository / "whole" / manifest.FILE_NAME).write_text(json.dumps(record))
    (repository / "part" / "1").mkdir(parents=True)
    (repository / "part" / "1" / "model.plan").write_bytes(b"plan")
    nvidia_smi(H200)
    found = by_subject(gpu_doctor.diagnose_gpus(repository))
    assert {name: finding.state for name, finding in found.items() if name.startswith("Engine")} == {
        "Engine fits": "good",
        "Engine foreign": "missing",
        "Engine old": "note",
        "Engine part": "missing",
    }
    assert found["Engine part"].detail == "compiled for compute capability 8.9; here is 9.0"
    nvidia_smi("No devices were found\n", 6)
    found = by_subject(gpu_doctor.diagnose_gpus(repository))
    assert (found["Engine fits"].state, found["Engine fits"].detail[-14:]) == ("note", "here is no GPU")


def test_a_build_records_the_compute_capability_of_its_engines(nvidia_smi: Callable[..., None], tmp_path: Path) -> None:
    nvidia_smi(A100S)
    made = recipes.make(name="m", source="/m")
    model, part = tmp_path / "m", tmp_path / "part"
    (model / "1").mkdir(parents=True)
    (part / "1").mkdir(parents=True)
    manifest.write(model, made, "digest", {}, 1.0, [part])
    assert "compute_capabilities" not in (manifest.read(model) or {})
    (part / "1" / "rank0.engine").write_bytes(b"engine")
    manifest.write(model, made, "digest", {}, 1.0, [part])
    assert (manifest.read(model) or {})["compute_capabilities"] == ["8.0"]


def test_the_command_looks_at_gpus_alone(nvidia_smi: Callable[..., None], tmp_path: Path) -> None:
    nvidia_smi(H200)
    done = CliRunner().invoke(app, ["doctor", "--gpu", "--repository", str(tmp_path / "none")])
    assert done.exit_code == 0, done.output
    assert "NVIDIA H200" in done.output and "Python" not in done.output.split("`tritonic")[0]
    nvidia_smi(NO_DRIVER, 9)
    assert CliRunner().invoke(app, ["doctor", "--gpu", "--repository", str(tmp_path)]).exit_code == 1
