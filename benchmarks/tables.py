"""What every part of the benchmarks returns: tables of numbers, the bars that they are held to, and how to draw them.

A part is a function that returns `list[Table]`. From these `python -m benchmarks` writes Markdown, JSON and a picture.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Value = str | int | float | Sequence[float] | None
"""A cell: text, a number, the numbers of all rounds, or nothing."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column; `name` is unique within its table."""

    name: str
    unit: str = ""
    digits: int = 0
    """Digits behind the point of numbers that are no `int`."""

    @property
    def title(self) -> str:
        """The name with the unit, as it stands above the column."""
        return f"{self.name}, {self.unit}" if self.unit else self.name

    def text(self, value: Value) -> str:
        """A cell as people read it."""
        match value:
            case None:
                return ""
            case str() | int():
                return str(value)
            case float():
                return f"{value:.{self.digits}f}"
            case _:
                return ", ".join(self.text(each) for each in value)


@dataclass(frozen=True, slots=True)
class Plot:
    """A drawing of a table: columns `over` another one; where `by` names a column, a line for each of its values."""

    over: str
    columns: tuple[str, ...]
    by: str = ""
    title: str = ""
    """Absent: the table's."""
    kind: Literal["lines", "bars"] = "lines"
    log_x: bool = False
    """For numbers of streams: each doubling is as wide as the others."""
    log_y: bool = False
    bar: float | None = None
    """A line across, where something is held to a bar."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """What was asked of a figure, and what was found."""

    name: str
    found: float
    wanted: float
    sense: Literal["at least", "at most"] = "at least"
    unit: str = ""
    digits: int = 3
    """Digits behind the point of `found`, where it is shown."""

    @property
    def met(self) -> bool:
        """Whether it is reached."""
        return self.found >= self.wanted if self.sense == "at least" else self.found <= self.wanted


@dataclass(frozen=True, slots=True)
class Table:
    """Numbers that were measured side by side; `rows` have a cell for each column. Raises `ValueError` otherwise."""

    title: str
    columns: tuple[Column, ...]
    rows: Sequence[Sequence[Value]]
    notes: tuple[str, ...] = ()
    """Sentences below the table."""
    plots: tuple[Plot, ...] = ()
    thresholds: tuple[Threshold, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    """What was measured beside Tritonic, `{"LiteLLM": "1.106.2"}`."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """More for the JSON alone: the figures of each round, for instance."""

    def __post_init__(self) -> None:
        names = [column.name for column in self.columns]
        if len(set(names)) != len(names):
            raise ValueError(f"{self.title}: two columns have one name: {names}")
        for row in self.rows:
            if len(row) != len(names):
                raise ValueError(f"{self.title}: {len(row)} cells for {len(names)} columns: {row}")
        for plot in self.plots:
            if unknown := {plot.over, *plot.columns, plot.by or plot.over} - set(names):
                raise ValueError(f"{self.title}: a plot wants {sorted(unknown)}, the columns are {names}")

    def values(self, name: str) -> list[Value]:
        """A column's cells."""
        (number,) = (number for number, column in enumerate(self.columns) if column.name == name)
        return [row[number] for row in self.rows]

    def markdown(self) -> str:
        """The table, its bars and its notes."""
        lines = [f"**{escape(self.title)}**", *self._grid()]
        for note in self.notes:
            lines += ["", note]
        return "\n".join(lines)

    def _grid(self) -> list[str]:
        """The lines of the grid, without columns that are empty throughout."""
        shown = {n for n in range(len(self.columns)) if not self.rows or any(row[n] is not None for row in self.rows)}
        if not shown:
            return []
        columns = [column for n, column in enumerate(self.columns) if n in shown]
        right = [all(not isinstance(value, str) for value in self.values(column.name)) for column in columns]
        lines = [
            "",
            _line([column.title for column in columns]),
            "|" + "|".join("---:" if each else "---" for each in right) + "|",
        ]
        for row in self.rows:
            cells = [value for n, value in enumerate(row) if n in shown]
            lines.append(_line([column.text(value) for column, value in zip(columns, cells, strict=True)]))
        return lines

    def document(self) -> dict[str, Any]:
        """The same as what JSON can hold: rows are objects by the columns' names."""
        names = [column.name for column in self.columns]
        return {
            "title": self.title,
            "units": {column.name: column.unit for column in self.columns if column.unit},
            "rows": [dict(zip(names, row, strict=True)) for row in self.rows],
            "notes": list(self.notes),
            "bars": [threshold_document(bar) for bar in self.thresholds],
            "versions": dict(self.versions),
            "details": dict(self.details),
        }


def threshold_document(bar: Threshold) -> dict[str, Any]:
    """A bar as what JSON can hold."""
    return {
        "name": bar.name,
        "found": bar.found,
        "wanted": bar.wanted,
        "sense": bar.sense,
        "unit": bar.unit,
        "digits": bar.digits,
        "met": bar.met,
    }


def thresholds_table(bars: Sequence[Threshold]) -> Table:
    """What was wanted next to what was found."""
    rows = []
    for bar in bars:
        number = Column("", digits=bar.digits)
        unit = f" {bar.unit}" if bar.unit else ""
        wanted = f"{'≥' if bar.sense == 'at least' else '≤'} {bar.wanted:g}{unit}"
        rows.append((bar.name, wanted, f"{number.text(bar.found)}{unit}", "yes" if bar.met else "**no**"))
    return Table("What was wanted, and what was found", tuple(map(Column, ("", "wanted", "found", "met"))), rows)


def escape(text: str) -> str:
    """Text that means itself in a cell of Markdown."""
    return text.replace("|", "\\|").replace("\n", " ")


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(escape, cells)) + " |"
