"""Draws dashboards from the series that Prometheus returned for their panels."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import EngFormatter, PercentFormatter
from PIL import Image

from tests.deploy.dashboards import Panel

_UNITS = {"reqps": "requests/s", "ops": "per second", "s": "seconds", "short": ""}
"""Units of the plots, by their names in Grafana."""

Series = tuple[str, list[tuple[float, float]]]
"""A legend, and points of seconds since the start and values."""


def legend(template: str, labels: Mapping[str, str]) -> str:
    """Fill the labels of a series into a legend, as Grafana does."""
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), template).strip() or "none"


def points(result: Mapping[str, Any], start: float) -> list[tuple[float, float]]:
    """Return the finite points of a series of Prometheus' API."""
    pairs = ((float(at) - start, float(value)) for at, value in result["values"])
    return [(at, value) for at, value in pairs if math.isfinite(value)]


def draw(panels: Sequence[tuple[Panel, list[Series]]], path: Path, columns: int = 5) -> None:
    """Write a PNG with one plot for each panel."""
    rows = math.ceil(len(panels) / columns)
    figure, axes = plt.subplots(rows, columns, figsize=(4.2 * columns, 2.6 * rows), layout="constrained")
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    for axis, (panel, series) in zip(axes.flat, panels, strict=False):
        for name, values in series:
            axis.plot(*zip(*values, strict=True), label=name, linewidth=1.2)
        axis.set_title(str(panel), fontsize=8.5, loc="left")
        largest = max((value for _, values in series for _, value in values), default=0)
        axis.set_ylim(0, largest * 1.35 or 1)
        if panel.unit == "percentunit":
            axis.yaxis.set_major_formatter(PercentFormatter(1))
        elif panel.unit == "bytes":
            axis.yaxis.set_major_formatter(EngFormatter("B"))
        else:
            axis.set_ylabel(_UNITS.get(panel.unit, panel.unit.removeprefix("suffix: ")), fontsize=7)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
        if len(series) <= 6:
            axis.legend(fontsize=6, loc="upper left", ncols=2)
    for axis in axes[-1]:
        axis.set_xlabel("seconds", fontsize=7)
    figure.savefig(path, dpi=72)
    plt.close(figure)
    Image.open(path).convert("RGB").quantize(32).save(path, optimize=True)
