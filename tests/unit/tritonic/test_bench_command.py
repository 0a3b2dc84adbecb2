"""`tritonic bench` where the benchmarks, or what they need, are missing."""

import importlib.util
import sys
import tomllib
from pathlib import Path

import pytest

from tritonic import bench

ROOT = Path(__file__).parents[3]


def test_bench_without_a_checkout_names_the_place_of_the_benchmarks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "__file__", str(tmp_path / "site-packages" / "tritonic" / "bench.py"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(bench.BenchError, match="the project's folder `benchmarks`, which the package leaves out"):
        bench.bench(["--help"])


def test_a_checkout_that_is_the_current_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "__file__", str(tmp_path / "site-packages" / "tritonic" / "bench.py"))
    monkeypatch.chdir(ROOT)
    assert bench.find_checkout() == ROOT


def test_missing_packages_are_named_with_the_command_that_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    lacking = {"matplotlib", "xllamacpp"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in lacking else find(name))
    with pytest.raises(bench.BenchError) as failure:
        bench.bench(["direct"])
    assert str(failure.value).splitlines() == [
        "The benchmarks need matplotlib, xllamacpp:",
        f"pip install -e '{ROOT}[embedded,build,bench]' -c {ROOT / 'constraints.txt'}",
    ]


def test_required_packages_are_in_the_named_extras() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    installed = {*project["dependencies"], *extras["embedded"], *extras["build"], *extras["bench"]}
    assert set(bench.PACKAGE_BY_MODULE.values()) <= installed


def test_the_command_exits_with_the_status_of_the_benchmark(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "missing_packages", list)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("PYTHONPATH", "")
    with pytest.raises(SystemExit) as ended:
        bench.bench(["nothing"])
    assert ended.value.code == 2
    assert "there is no part nothing" in capsys.readouterr().err
