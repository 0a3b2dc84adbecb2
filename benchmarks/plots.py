"""Draws the plots of result tables with matplotlib."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.tables import Plot, Table, Value

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# The palette of Okabe and Ito, which colour-blind readers can tell apart. Threshold lines are black.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C564B", "#7F7F7F")
MARKS = "os^Dv<>P"
WIDTH, HEIGHT = 7.0, 4.2
"""Size of one plot in inches."""
MAX_TICKS = 16
"""Most x values with a tick each. With more values, matplotlib chooses the ticks."""


def draw(tables: Sequence[Table], caption: str, path: Path) -> bool:
    """Draw all plots of all tables into one PNG file, two in a row. Return False, and write nothing, without plots."""
    plots = [(table, plot) for table in tables for plot in table.plots if table.rows]
    if not plots:
        return False
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    num_columns = min(2, len(plots))
    num_rows = -(-len(plots) // num_columns)
    size = (WIDTH * num_columns, HEIGHT * num_rows + 0.3)
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12))
    FigureCanvasAgg(figure)
    axes = figure.subplots(num_rows, num_columns, squeeze=False).flatten()
    for subplot, (table, plot) in zip(axes, plots, strict=False):
        _draw(subplot, table, plot)
    for unused in axes[len(plots) :]:
        unused.set_axis_off()
    figure.supxlabel(caption, fontsize=7, color="#555555")
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
        ticks = sorted({x for points in series.values() for x, _ in points})
        if len(ticks) <= MAX_TICKS:
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
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
        axes.axhline(plot.threshold, color="black", linewidth=1, linestyle="--", label=f"target: {plot.threshold:g}")
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
    """Return the points of each line or group of bars, by label. Empty cells have no point."""
    series: dict[str, list[tuple[Any, float]]] = {}
    x_values = table.values(plot.over)
    names: list[Value] = table.values(plot.by) if plot.by else [""] * len(x_values)
    for column in plot.columns:
        for x, name, y in zip(x_values, names, table.values(column), strict=True):
            if isinstance(y, int | float):
                label = " ".join(filter(None, (str(name), column if len(plot.columns) > 1 or not name else "")))
                series.setdefault(label, []).append((x, float(y)))
    return series


def _bars(axes: "Axes", series: dict[str, list[tuple[Any, float]]], table: Table, plot: Plot) -> None:
    groups = list(dict.fromkeys(x for points in series.values() for x, _ in points))
    width = 0.8 / len(series)
    digits = {column.name: column.digits for column in table.columns}
    for number, (name, points) in enumerate(series.items()):
        positions = [groups.index(x) + (number - (len(series) - 1) / 2) * width for x, _ in points]
        heights, colour = [y for _, y in points], COLOURS[number % len(COLOURS)]
        bars = axes.bar(positions, heights, width * 0.92, label=name, color=colour)
        number_format = f"%.{digits[plot.columns[min(number, len(plot.columns) - 1)]]}f"
        if plot.threshold is None:
            axes.bar_label(bars, fmt=number_format, fontsize=7, padding=2)
        else:  # the label must not cross the threshold line
            axes.bar_label(bars, fmt=number_format, fontsize=7, label_type="center", color="white")
    axes.set_xticks(range(len(groups)), [_wrapped(str(group), 84 // len(groups)) for group in groups])


def _wrapped(text: str, width: int) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, max(width, 8)))


def _y_label(table: Table, plot: Plot) -> str:
    """Return the label of the y axis: the title of the one column, or the unit that all columns share."""
    columns = [column for column in table.columns if column.name in plot.columns]
    units = {column.unit for column in columns}
    if len(columns) == 1:
        return columns[0].title
    return units.pop() if len(units) == 1 else ""
