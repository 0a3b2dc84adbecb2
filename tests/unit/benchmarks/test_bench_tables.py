"""Result tables as Markdown and JSON, and their thresholds."""

import json

import pytest

from benchmarks.tables import Column, Plot, Table, Threshold, parse_threshold, threshold_document, thresholds_table

STREAMS = Table(
    "Two systems | one model",
    (Column("streams"), Column("system"), Column("rate", "tokens/s", 1), Column("rounds", digits=2)),
    [(1, "a|b", 10.04, [0.5, 1.0]), (2, "over\ntwo lines", None, ())],
    notes=("Seen once.",),
    plots=(Plot("streams", ("rate",), by="system"),),
    thresholds=(Threshold("rate", 10.04, 10.0),),
    details={"rounds": [1, 2]},
)


def test_markdown_has_one_line_for_each_row_and_escapes_cells() -> None:
    assert STREAMS.markdown().splitlines() == [
        "**Two systems \\| one model**",
        "",
        "| streams | system | rate, tokens/s | rounds |",
        "|---:|---|---:|---:|",
        "| 1 | a\\|b | 10.0 | 0.50, 1.00 |",
        "| 2 | over two lines |  |  |",
        "",
        "Seen once.",
    ]


def test_json_has_all_digits() -> None:
    document = json.loads(json.dumps(STREAMS.document()))
    assert document["rows"][0] == {"streams": 1, "system": "a|b", "rate": 10.04, "rounds": [0.5, 1.0]}
    assert document["units"] == {"rate": "tokens/s"}
    assert document["bars"][0]["met"] is True
    assert document["details"] == {"rounds": [1, 2]}


@pytest.mark.parametrize(
    ("threshold", "met"),
    [
        (Threshold("a", 0.97, 0.97), True),
        (Threshold("a", 0.9699, 0.97), False),
        (Threshold("a", 2.0, 2.0, "at most"), True),
        (Threshold("a", 2.1, 2.0, "at most"), False),
    ],
)
def test_a_threshold_is_met_at_its_target(threshold: Threshold, met: bool) -> None:
    assert threshold.met is met


def test_the_table_of_thresholds_has_comparison_and_unit() -> None:
    table = thresholds_table([Threshold("added", 1.25, 2.0, "at most", "ms", 1), Threshold("ratio", 0.9, 0.97)])
    assert table.rows == [("added", "≤ 2 ms", "1.2 ms", "yes"), ("ratio", "≥ 0.97", "0.900", "**no**")]


def test_a_threshold_is_read_back_from_its_document() -> None:
    threshold = Threshold("added", 1.25, 2.0, "at most", "ms", 1)
    assert parse_threshold(json.loads(json.dumps(threshold_document(threshold)))) == threshold


def test_a_table_with_inconsistent_columns_is_refused() -> None:
    with pytest.raises(ValueError, match="3 cells for 1 columns"):
        Table("t", (Column("a"),), [(1, 2, 3)])
    with pytest.raises(ValueError, match="one name"):
        Table("t", (Column("a"), Column("a")), [])
    with pytest.raises(ValueError, match="a plot wants"):
        Table("t", (Column("a"),), [], plots=(Plot("a", ("b",)),))
