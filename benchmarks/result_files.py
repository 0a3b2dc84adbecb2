"""Writes the result files: NAME.md, NAME.json and NAME.png of each part, and README.md and summary.json for all."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.plots import draw
from benchmarks.tables import Table, Threshold, thresholds_table

SUMMARY = "summary.json"


@dataclass(frozen=True, slots=True)
class RunConditions:
    """When, on which machine and with which versions a part was measured."""

    date: str
    machine: Mapping[str, str]
    versions: Mapping[str, str]
    rounds: int | None
    """None for a part without rounds."""
    quick: bool

    def line(self) -> str:
        """Return the conditions as one line."""
        told = [f"{name} {value}" for name, value in self.versions.items()]
        where = [self.machine["processor"], f"{self.machine['cores']} cores", self.machine["memory"]]
        if cards := self.machine.get("cards"):
            where.append(cards)
        counts = {None: "", 1: "; one round"}
        count = counts.get(self.rounds, f"; {self.rounds} rounds")
        quick = "; a quick look, no figures to quote" if self.quick else ""
        return f"{self.date}, {', '.join(where)}; {', '.join(told)}{count}{quick}"


def write_results(folder: Path, part: str, tables: Sequence[Table], under: RunConditions, seconds: float) -> str:
    """Write a part's three files and return its Markdown."""
    measured = {name: value for table in tables for name, value in table.versions.items()}
    under = RunConditions(under.date, under.machine, {**under.versions, **measured}, under.rounds, under.quick)
    bars = [bar for table in tables for bar in table.thresholds]
    drawn = draw(tables, under.line().split("; ")[0], folder / f"{part}.png")
    if not drawn:
        (folder / f"{part}.png").unlink(missing_ok=True)
    pieces = [f"# {part}", under.line() + f"; load {under.machine['load when it began']} when it began."]
    pieces += [table.markdown() for table in tables]
    pieces += [thresholds_table(bars).markdown()] if bars else []
    pieces += [f"![{part}]({part}.png)"] if drawn else []
    text = "\n\n".join(pieces) + "\n"
    (folder / f"{part}.md").write_text(text)
    document = {"part": part, **asdict(under), "seconds": round(seconds, 1)}
    document["tables"] = [table.document() for table in tables]
    _write(folder / f"{part}.json", document)
    return text


def write_summary(folder: Path, parts: Sequence[str], failed: Mapping[str, str]) -> str:
    """Write README.md and summary.json from the files of all parts. Return the text of README.md.

    `failed` maps the parts that failed to their errors. A part that failed in an earlier run stays failed until it runs
    again.
    """
    found = {part: document for part in parts if (document := _read(folder, part))}
    entries: list[dict[str, Any]] = []
    for part, document in found.items():
        for table in document["tables"]:
            entries += [{"part": part, "date": document["date"], **bar} for bar in table["bars"]]
    absent = [part for part in parts if part not in found and part not in failed]
    latest = max((document["date"] for document in found.values()), default="")
    _write(
        folder / SUMMARY,
        {
            "bars": entries,
            "failed": dict(failed),
            "not run": absent,
            "parts": {
                part: {key: document[key] for key in ("date", "machine", "versions", "rounds", "quick", "seconds")}
                for part, document in found.items()
            },
        },
    )
    text = _summary(found, entries, failed, absent, latest)
    (folder / "README.md").write_text(text)
    return text


def read_failures(folder: Path) -> dict[str, str]:
    """Return the failed parts and their errors from the last summary."""
    path = folder / SUMMARY
    return dict(json.loads(path.read_text())["failed"]) if path.exists() else {}


def _summary(
    found: Mapping[str, dict[str, Any]],
    entries: Sequence[dict[str, Any]],
    failed: Mapping[str, str],
    absent: Sequence[str],
    latest: str,
) -> str:
    pieces = [
        "# Benchmark results",
        "Written by `tritonic bench`. Ratios compare what was measured side by side in one run.",
    ]
    if entries:
        bars = [
            Threshold(each["name"], each["found"], each["wanted"], each["sense"], each["unit"], each["digits"])
            for each in entries
        ]
        pieces.append(thresholds_table(bars).markdown())
    lines = ["| part | measured | seconds | |", "|---|---|---:|---|"]
    for part, document in found.items():
        quick = ", a quick look" if document["quick"] else ""
        lines.append(
            f"| [{part}]({part}.md) | {document['date']}{quick} | {document['seconds']:.0f} | [figures]({part}.json) |"
        )
    pieces.append("\n".join(lines))
    for part, reason in failed.items():
        pieces.append(f"**{part} failed:** {reason}")
    if absent:
        pieces.append(f"Not run: {', '.join(absent)}.")
    if latest:
        last = next(document for document in found.values() if document["date"] == latest)
        under = RunConditions(last["date"], last["machine"], _versions(found), last["rounds"], last["quick"])
        pieces.append(f"The latest: {under.line()}.")
    return "\n\n".join(pieces) + "\n"


def _versions(found: Mapping[str, dict[str, Any]]) -> dict[str, str]:
    return {name: value for document in found.values() for name, value in document["versions"].items()}


def _read(folder: Path, part: str) -> dict[str, Any] | None:
    """Read a part's JSON file. Return None if there is none, or one of another version's format."""
    try:
        document: dict[str, Any] = json.loads((folder / f"{part}.json").read_text())
    except (FileNotFoundError, ValueError):
        return None
    return document if "tables" in document else None


def _write(path: Path, document: object) -> None:
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
