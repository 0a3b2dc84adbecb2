"""The command `tritonic bench`: its arguments, its result files, and parts that fail."""

import json
import signal
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks.registry import BENCHMARKS, Benchmark, RunOptions
from benchmarks.tables import Column, Plot, Table, Threshold

RATES = Table(
    "Rates",
    (Column("streams"), Column("system"), Column("rate", "tokens/s", 1)),
    [(1, "ours", 10.0), (1, "theirs", 5.0), (16, "ours", 40.0), (16, "theirs", 8.0)],
    plots=(Plot("streams", ("rate",), by="system", log_x=True, threshold=20.0), Plot("system", ("rate",), kind="bars")),
    thresholds=(Threshold("times theirs", 5.0, 4.0), Threshold("lost", 2.0, 0.0, "at most", digits=0)),
    versions={"theirs": "1.2.3"},
)


def works(options: RunOptions) -> list[Table]:
    return [RATES]


def fails(options: RunOptions) -> list[Table]:
    raise SystemExit(f"{Path.home()}/peer could not be installed:\nno network")


@pytest.fixture(autouse=True)
def parts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(BENCHMARKS):
        monkeypatch.delitem(BENCHMARKS, name)
    monkeypatch.setitem(BENCHMARKS, "works", Benchmark("what works", works, needs_models=False))
    monkeypatch.setitem(BENCHMARKS, "fails", Benchmark("what fails", fails, needs_models=False))
    monkeypatch.setitem(
        BENCHMARKS, "sweeps", Benchmark("what takes no turns", works, needs_models=False, default_rounds=None)
    )


def test_a_part_writes_markdown_json_and_a_plot(tmp_path: Path) -> None:
    assert command.main(["works", "--rounds", "2", "--results", str(tmp_path)]) == 0
    text = (tmp_path / "works.md").read_text()
    assert "| 16 | theirs | 8.0 |" in text
    assert "| times theirs | ≥ 4 | 5.000 | yes |" in text
    assert "theirs 1.2.3" in text and "2 rounds" in text
    document = json.loads((tmp_path / "works.json").read_text())
    assert document["rounds"] == 2 and not document["quick"]
    assert document["versions"]["theirs"] == "1.2.3"
    assert document["tables"][0]["rows"][3] == {"streams": 16, "system": "theirs", "rate": 8.0}
    assert document["machine"]["cores"]
    assert (tmp_path / "works.png").read_bytes().startswith(b"\x89PNG")


def test_a_part_without_rounds_reports_none(tmp_path: Path) -> None:
    assert command.main(["sweeps", "--results", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "sweeps.json").read_text())["rounds"] is None
    assert "round" not in (tmp_path / "sweeps.md").read_text()
    assert "round" not in (tmp_path / "README.md").read_text()


def test_rounds_are_not_passed_to_parts_without_rounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands: dict[str, list[str]] = {}

    def run(child: Sequence[str]) -> int:
        commands[child[3]] = list(child)
        return command._run_one(child[3], RunOptions(tmp_path, "m", 5, False, None, tmp_path, tmp_path), tmp_path)

    monkeypatch.setattr(command, "_run", run)
    assert command.main(["works", "sweeps", "--rounds", "5", "--results", str(tmp_path)]) == 0
    assert "--rounds does not apply to sweeps: nothing takes turns there." in capsys.readouterr().err
    assert commands["works"][-2:] == ["--rounds", "5"] and "--rounds" not in commands["sweeps"]


def test_a_failed_part_is_reported_and_keeps_the_results_of_others(tmp_path: Path) -> None:
    results = ["--results", str(tmp_path)]
    assert command.main(["works", *results]) == 0
    assert command.main(["fails", *results]) == 1
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["failed"] == {"fails": "SystemExit: ~/peer could not be installed:"}
    assert [(entry["part"], entry["name"], entry["met"]) for entry in summary["bars"]] == [
        ("works", "times theirs", True),
        ("works", "lost", False),
    ]
    text = (tmp_path / "README.md").read_text()
    assert "**fails failed:** SystemExit: ~/peer could not be installed:" in text
    assert "| lost | ≤ 0 | 2 | **no** |" in text
    # The part stays failed until it runs again.
    assert command.main(["works", *results]) == 0
    assert "fails failed" in (tmp_path / "README.md").read_text()


def test_a_part_that_works_again_is_no_longer_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = ["--results", str(tmp_path)]
    assert command.main(["fails", *results]) == 1
    monkeypatch.setitem(BENCHMARKS, "fails", Benchmark("what failed", works, needs_models=False))
    assert command.main(["fails", *results]) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["failed"] == {}
    assert summary["not run"] == ["works", "sweeps"]


def test_result_files_do_not_identify_this_machine(tmp_path: Path) -> None:
    assert command.main(["works", "--results", str(tmp_path)]) == 0
    private = (f"{Path.home()}/", str(Path.cwd()), str(tmp_path), socket.gethostname())
    written = [path for path in tmp_path.iterdir() if path.suffix in {".md", ".json"}]
    assert len(written) == 4
    for path in written:
        text = path.read_text()
        assert not [name for name in private if name in text]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nothing"], "there is no part nothing; parts: works, fails, sweeps"),
        (["works", "--rounds", "0"], "'0' is no number of rounds"),
        (["sweeps", "--rounds", "2"], "--rounds does not apply to sweeps: nothing takes turns there"),
        (["works", "--rounds", "few"], "'few' is no number of rounds"),
        (["works", "--peer", "foo"], "--peer: 'foo' is neither NAME=URL nor NAME=MODEL@URL"),
        (["--fast"], "unrecognized arguments: --fast"),
    ],
)
def test_wrong_arguments_are_refused(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main([*arguments, "--results", str(tmp_path / "none")])
    assert ended.value.code == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_the_help_describes_each_part(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(["--help"])
    assert ended.value.code == 0
    output = capsys.readouterr().out
    assert "works       what works" in output
    assert "Exit status: 0" in output


def test_an_interrupted_part_has_not_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cleaned = []

    def waits(options: RunOptions) -> list[Table]:
        try:
            signal.raise_signal(signal.SIGTERM)
            return [RATES]
        finally:
            signal.raise_signal(signal.SIGINT)  # a second signal during the cleanup
            cleaned.append(True)

    monkeypatch.setitem(BENCHMARKS, "waits", Benchmark("what takes long", waits, needs_models=False))
    before = [signal.getsignal(number) for number in command.END_SIGNALS]
    assert command.main(["waits", "--results", str(tmp_path)]) == 130
    assert cleaned == [True]
    assert not (tmp_path / "waits.json").exists()
    assert [signal.getsignal(number) for number in command.END_SIGNALS] == before


def test_result_files_of_another_format_are_ignored(tmp_path: Path) -> None:
    (tmp_path / "fails.json").write_text('{"rounds": 3, "figures": {}}')
    assert command.main(["works", "--results", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "summary.json").read_text())["not run"] == ["fails", "sweeps"]
