"""The panels of deploy/dashboards, and the metrics of their queries."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/dashboards"

_STRINGS = re.compile(r'"[^"]*"')
_LABELS = re.compile(r"\{[^}]*\}|\b(?:by|without|on|ignoring)\s*\([^)]*\)")
_NAMES = re.compile(r"(?<![A-Za-z0-9_:.])[A-Za-z_:][A-Za-z0-9_:]*")
_FUNCTIONS_AND_KEYWORDS = re.compile(r"\b[a-z_]+(?=\s*\()|\b(?:or|and|unless|by|without)\b")
_RANGES = re.compile(r"\[[^]]*\]")


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel of a dashboard. `targets` are pairs of a PromQL query and the legend of its series."""

    dashboard: str
    title: str
    unit: str
    description: str
    targets: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return f"{self.dashboard}: {self.title}"


def load_dashboards() -> dict[str, dict[str, Any]]:
    """Return the dashboards by the names of their files."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}


def load_panels() -> list[Panel]:
    """Return the panels of all dashboards."""
    return [
        Panel(
            name,
            panel["title"],
            panel["fieldConfig"]["defaults"]["unit"],
            panel["description"],
            tuple((target["expr"], target["legendFormat"]) for target in panel["targets"]),
        )
        for name, dashboard in load_dashboards().items()
        for panel in dashboard["panels"]
    ]


def metric_names(query: str) -> set[str]:
    """Return the names of the metrics that a PromQL query reads."""
    for pattern in (_STRINGS, _LABELS, _RANGES, _FUNCTIONS_AND_KEYWORDS):
        query = pattern.sub(" ", query)
    return set(_NAMES.findall(query))
