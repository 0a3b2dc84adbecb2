"""The result of every benchmark: tables of numbers, their thresholds (targets), and how to plot them.

A benchmark is a function that returns `list[Table]`. `python -m benchmarks` writes Markdown, JSON and an image from it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Value = str | int | float | Sequence[float] | None
"""A cell: text, a number, the numbers of all rounds, or None for an empty cell."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column; `name` is unique within its table."""

    name: str
    unit: str = ""
    digits: int = 0
    """Decimal places of float cells."""

    @property
    def title(self) -> str:
        """The column heading: the name and the unit."""
        return f"{self.name}, {self.unit}" if self.unit else self.name

    def text(self, value: Value) -> str:
        """Return a cell as text."""
        match value:
            case None:
                return ""
            case str() | int():
                return str(value)
            case float():
                return f"{value:.{self.digits}f}"
            case _:
                return ", ".join(self.text(number) for number in value)


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot of `columns` (y) over the column `over` (x). With `by`, each value of that column is a line."""

    over: str
    columns: tuple[str, ...]
    by: str = ""
    title: str = ""
    """Empty: the title of the table."""
    kind: Literal["lines", "bars"] = "lines"
    log_x: bool = False
    """Use a logarithmic x axis (base 2), for numbers of streams."""
    log_y: bool = False
    threshold: float | None = None
    """Draw a horizontal line at this target value."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """A measured value and its target."""

    name: str
    value: float
    target: float
    comparison: Literal["at least", "at most"] = "at least"
    """`at least`: the target is the lowest accepted value; `at most`: the highest."""
    unit: str = ""
    digits: int = 3
    """Decimal places of `value` when it is printed."""

    @property
    def met(self) -> bool:
        """True if the target is reached."""
        return self.value >= self.target if self.comparison == "at least" else self.value <= self.target


@dataclass(frozen=True, slots=True)
class Table:
    """Numbers measured side by side. Raises `ValueError` if a row does not have one cell for each column."""

    title: str
    columns: tuple[Column, ...]
    rows: Sequence[Sequence[Value]]
    notes: tuple[str, ...] = ()
    """Sentences that are printed below the table."""
    plots: tuple[Plot, ...] = ()
    thresholds: tuple[Threshold, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    """Versions of the other programs that were measured: `{"LiteLLM": "1.106.2"}`."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """More data for the JSON file alone, such as the values of each round."""

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
        """Return the cells of the column `name`."""
        (number,) = (number for number, column in enumerate(self.columns) if column.name == name)
        return [row[number] for row in self.rows]

    def markdown(self) -> str:
        """Return the table with its notes as Markdown."""
        lines = [f"**{escape(self.title)}**", *self._grid()]
        for note in self.notes:
            lines += ["", note]
        return "\n".join(lines)

    def _grid(self) -> list[str]:
        """Return the lines of the Markdown table, without columns that are empty in every row."""
        shown = {n for n in range(len(self.columns)) if not self.rows or any(row[n] is not None for row in self.rows)}
        if not shown:
            return []
        columns = [column for n, column in enumerate(self.columns) if n in shown]
        is_numeric = [all(not isinstance(value, str) for value in self.values(column.name)) for column in columns]
        lines = [
            "",
            _line([column.title for column in columns]),
            "|" + "|".join("---:" if numeric else "---" for numeric in is_numeric) + "|",
        ]
        for row in self.rows:
            cells = [value for n, value in enumerate(row) if n in shown]
            lines.append(_line([column.text(value) for column, value in zip(columns, cells, strict=True)]))
        return lines

    def document(self) -> dict[str, Any]:
        """Return the table as a JSON document. A row is an object with the column names as keys."""
        names = [column.name for column in self.columns]
        return {
            "title": self.title,
            "units": {column.name: column.unit for column in self.columns if column.unit},
            "rows": [dict(zip(names, row, strict=True)) for row in self.rows],
            "notes": list(self.notes),
            "bars": [threshold_document(threshold) for threshold in self.thresholds],
            "versions": dict(self.versions),
            "details": dict(self.details),
        }


def threshold_document(threshold: Threshold) -> dict[str, Any]:
    """Return a threshold as a JSON document. `parse_threshold` reads it."""
    return {
        "name": threshold.name,
        "found": threshold.value,
        "wanted": threshold.target,
        "sense": threshold.comparison,
        "unit": threshold.unit,
        "digits": threshold.digits,
        "met": threshold.met,
    }


def parse_threshold(document: Mapping[str, Any]) -> Threshold:
    """Return the threshold of a JSON document. Raises `KeyError` if a field is missing."""
    name, value, target, comparison, unit, digits = (
        document[key] for key in ("name", "found", "wanted", "sense", "unit", "digits")
    )
    return Threshold(name, value, target, comparison, unit, digits)


def thresholds_table(thresholds: Sequence[Threshold]) -> Table:
    """Return a table of all targets and results."""
    rows = []
    for threshold in thresholds:
        number = Column("", digits=threshold.digits)
        unit = f" {threshold.unit}" if threshold.unit else ""
        target = f"{'≥' if threshold.comparison == 'at least' else '≤'} {threshold.target:g}{unit}"
        result = f"{number.text(threshold.value)}{unit}"
        rows.append((threshold.name, target, result, "yes" if threshold.met else "**no**"))
    return Table("Targets and results", tuple(map(Column, ("", "target", "result", "met"))), rows)


def escape(text: str) -> str:
    """Escape text for a cell of a Markdown table."""
    return text.replace("|", "\\|").replace("\n", " ")


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(escape, cells)) + " |"
