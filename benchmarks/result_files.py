"""Writes the result files: NAME.md, NAME.json and NAME.png of each part, and README.md and summary.json for all."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.machine import LOAD
from benchmarks.plots import draw
from benchmarks.tables import Table, parse_threshold, thresholds_table

SUMMARY = "summary.json"


@dataclass(frozen=True, slots=True)
class RunConditions:
    """The date, machine and versions of a measurement."""

    date: str
    """Date and time in UTC."""
    machine: Mapping[str, str]
    versions: Mapping[str, str]
    rounds: int | None
    """None for a part without rounds."""
    quick: bool
    """True for a run with `--quick`."""

    def line(self) -> str:
        """Return the conditions as one line."""
        versions = [f"{name} {value}" for name, value in self.versions.items()]
        machine = [self.machine["processor"], f"{self.machine['cores']} cores", self.machine["memory"]]
        if cards := self.machine.get("cards"):
            machine.append(cards)
        rounds = {None: "", 1: "; one round"}.get(self.rounds, f"; {self.rounds} rounds")
        quick = "; a quick run, not for quoting" if self.quick else ""
        return f"{self.date}, {', '.join(machine)}; {', '.join(versions)}{rounds}{quick}"


def write_results(folder: Path, part: str, tables: Sequence[Table], conditions: RunConditions, seconds: float) -> str:
    """Write a part's three files and return its Markdown. `seconds` is the duration of the part."""
    measured_versions = {name: value for table in tables for name, value in table.versions.items()}
    conditions = replace(conditions, versions={**conditions.versions, **measured_versions})
    thresholds = [threshold for table in tables for threshold in table.thresholds]
    has_plots = draw(tables, conditions.line().split("; ")[0], folder / f"{part}.png")
    if not has_plots:
        (folder / f"{part}.png").unlink(missing_ok=True)
    sections = [f"# {part}", f"{conditions.line()}; load average {conditions.machine[LOAD]} at the start."]
    sections += [table.markdown() for table in tables]
    sections += [thresholds_table(thresholds).markdown()] if thresholds else []
    sections += [f"![{part}]({part}.png)"] if has_plots else []
    text = "\n\n".join(sections) + "\n"
    (folder / f"{part}.md").write_text(text)
    document = {"part": part, **asdict(conditions), "seconds": round(seconds, 1)}
    document["tables"] = [table.document() for table in tables]
    _write(folder / f"{part}.json", document)
    return text


def write_summary(folder: Path, parts: Sequence[str], failed: Mapping[str, str]) -> str:
    """Write README.md and summary.json from the files of all parts. Return the text of README.md.

    `failed` maps the parts that failed to their errors. A part that failed in an earlier run stays failed until it runs
    again.
    """
    documents = {part: document for part in parts if (document := _read(folder, part))}
    thresholds: list[dict[str, Any]] = []
    for part, document in documents.items():
        for table in document["tables"]:
            thresholds += [{"part": part, "date": document["date"], **threshold} for threshold in table["bars"]]
    not_run = [part for part in parts if part not in documents and part not in failed]
    latest = max((document["date"] for document in documents.values()), default="")
    _write(
        folder / SUMMARY,
        {
            "bars": thresholds,
            "failed": dict(failed),
            "not run": not_run,
            "parts": {
                part: {key: document[key] for key in ("date", "machine", "versions", "rounds", "quick", "seconds")}
                for part, document in documents.items()
            },
        },
    )
    text = _summary(documents, thresholds, failed, not_run, latest)
    (folder / "README.md").write_text(text)
    return text


def read_failures(folder: Path) -> dict[str, str]:
    """Return the failed parts and their errors from the last summary."""
    path = folder / SUMMARY
    return dict(json.loads(path.read_text())["failed"]) if path.exists() else {}


def _summary(
    documents: Mapping[str, dict[str, Any]],
    thresholds: Sequence[dict[str, Any]],
    failed: Mapping[str, str],
    not_run: Sequence[str],
    latest: str,
) -> str:
    """Return the text of README.md. `latest` is the date of the last run."""
    sections = [
        "# Benchmark results",
        "Written by `tritonic bench`. Each ratio compares two systems that took turns in one run.",
    ]
    if thresholds:
        sections.append(thresholds_table([parse_threshold(threshold) for threshold in thresholds]).markdown())
    lines = ["| part | measured | seconds | |", "|---|---|---:|---|"]
    for part, document in documents.items():
        quick = ", quick" if document["quick"] else ""
        lines.append(
            f"| [{part}]({part}.md) | {document['date']}{quick} | {document['seconds']:.0f} | [data]({part}.json) |"
        )
    sections.append("\n".join(lines))
    for part, reason in failed.items():
        sections.append(f"**{part} failed:** {reason}")
    if not_run:
        sections.append(f"Not run: {', '.join(not_run)}.")
    if latest:
        last = next(document for document in documents.values() if document["date"] == latest)
        conditions = RunConditions(last["date"], last["machine"], _versions(documents), last["rounds"], last["quick"])
        sections.append(f"The latest: {conditions.line()}.")
    return "\n\n".join(sections) + "\n"


def _versions(documents: Mapping[str, dict[str, Any]]) -> dict[str, str]:
    return {name: value for document in documents.values() for name, value in document["versions"].items()}


def _read(folder: Path, part: str) -> dict[str, Any] | None:
    """Read a part's JSON file. Return None if there is no file, or if its format is that of another version."""
    try:
        document: dict[str, Any] = json.loads((folder / f"{part}.json").read_text())
    except (FileNotFoundError, ValueError):
        return None
    return document if "tables" in document else None


def _write(path: Path, document: object) -> None:
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
