"""Drawings of tables."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.tables import Plot, Table, Value

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Apart for the colour-blind as well (Okabe and Ito), black for bars across.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C564B", "#7F7F7F")
MARKS = "os^Dv<>P"
WIDE, HIGH = 7.0, 4.2
"""Inches of one drawing."""
MAX_TICKS = 16
"""Where lines have more places than this, moments for instance, not each of them is written below."""


def draw(tables: Sequence[Table], below: str, path: Path) -> bool:
    """Draw all plots of all tables into one PNG, two in a row, with a line below; whether there was any to draw."""
    plots = [(table, plot) for table in tables for plot in table.plots if table.rows]
    if not plots:
        return False
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    across = min(2, len(plots))
    down = -(-len(plots) // across)
    figure = Figure(figsize=(WIDE * across, HIGH * down + 0.3), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12))
    FigureCanvasAgg(figure)
    axes = figure.subplots(down, across, squeeze=False).flatten()
    for each, (table, plot) in zip(axes, plots, strict=False):
        _draw(each, table, plot)
    for each in axes[len(plots) :]:
        each.set_axis_off()
    figure.supxlabel(below, fontsize=7, color="#555555")
    figure.savefig(path, dpi=110, metadata={"Software": None})
    return True


def _draw(axes: "Axes", table: Table, plot: Plot) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator

    series = _series(table, plot)
    if plot.kind == "bars":
        _bars(axes, series, table, plot)
    else:
        for (name, points), colour, mark in zip(series.items(), COLOURS * 3, MARKS * 3, strict=False):
            axes.plot(*zip(*points, strict=True), label=name, color=colour, marker=mark, markersize=5, linewidth=1.6)
        if plot.log_x:
            axes.set_xscale("log", base=2)
        places = sorted({x for points in series.values() for x, _ in points})
        if len(places) <= MAX_TICKS:
            axes.set_xticks(places, [f"{place:g}" for place in places])
        axes.minorticks_off()
    if plot.log_y:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axes.minorticks_off()
    else:
        highest = max((y for points in series.values() for _, y in points), default=1.0)
        axes.set_ylim(0, 1.15 * max(highest, plot.threshold or 0.0) or 1.0)
    if plot.threshold is not None:
        axes.axhline(plot.threshold, color="black", linewidth=1, linestyle="--", label=f"wanted: {plot.threshold:g}")
    axes.set_title(plot.title or table.title, fontsize=10, loc="left", wrap=True)
    titles = {column.name: column.title for column in table.columns}
    axes.set_xlabel(titles[plot.over], fontsize=9)
    axes.set_ylabel(_y_label(table, plot), fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(axis="y", color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if len(series) > 1 or plot.threshold is not None:
        axes.legend(fontsize=7.5, frameon=False, loc="best")


def _series(table: Table, plot: Plot) -> dict[str, list[tuple[Any, float]]]:
    """The points of each line; cells that are empty have none."""
    found: dict[str, list[tuple[Any, float]]] = {}
    over = table.values(plot.over)
    names: list[Value] = table.values(plot.by) if plot.by else [""] * len(over)
    for column in plot.columns:
        for x, name, y in zip(over, names, table.values(column), strict=True):
            if isinstance(y, int | float):
                label = " ".join(filter(None, (str(name), column if len(plot.columns) > 1 or not name else "")))
                found.setdefault(label, []).append((x, float(y)))
    return found


def _bars(axes: "Axes", series: dict[str, list[tuple[Any, float]]], table: Table, plot: Plot) -> None:
    groups = list(dict.fromkeys(x for points in series.values() for x, _ in points))
    width = 0.8 / len(series)
    digits = {column.name: column.digits for column in table.columns}
    for number, (name, points) in enumerate(series.items()):
        places = [groups.index(x) + (number - (len(series) - 1) / 2) * width for x, _ in points]
        drawn = axes.bar(places, [y for _, y in points], width * 0.92, label=name, color=COLOURS[number % len(COLOURS)])
        form = f"%.{digits[plot.columns[min(number, len(plot.columns) - 1)]]}f"
        if plot.threshold is None:
            axes.bar_label(drawn, fmt=form, fontsize=7, padding=2)
        else:  # out of the way of the line across
            axes.bar_label(drawn, fmt=form, fontsize=7, label_type="center", color="white")
    axes.set_xticks(range(len(groups)), [_folded(str(group), 84 // len(groups)) for group in groups])


def _folded(text: str, width: int) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, max(width, 8)))


def _y_label(table: Table, plot: Plot) -> str:
    chosen = [column for column in table.columns if column.name in plot.columns]
    units = {column.unit for column in chosen}
    if len(chosen) == 1:
        return chosen[0].title
    return units.pop() if len(units) == 1 else ""
