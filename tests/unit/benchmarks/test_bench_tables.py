import json

import pytest

from benchmarks.tables import Column, Plot, Table, Threshold, thresholds_table

STREAMS = Table(
    "Two ways | one model",
    (Column("streams"), Column("way"), Column("rate", "tokens/s", 1), Column("rounds", digits=2)),
    [(1, "a|b", 10.04, [0.5, 1.0]), (2, "over\ntwo lines", None, ())],
    notes=("Seen once.",),
    plots=(Plot("streams", ("rate",), by="way"),),
    thresholds=(Threshold("rate", 10.04, 10.0),),
    details={"rounds": [1, 2]},
)


def test_markdown_has_a_line_for_each_row_and_no_cell_breaks_it() -> None:
    assert STREAMS.markdown().splitlines() == [
        "**Two ways \\| one model**",
        "",
        "| streams | way | rate, tokens/s | rounds |",
        "|---:|---|---:|---:|",
        "| 1 | a\\|b | 10.0 | 0.50, 1.00 |",
        "| 2 | over two lines |  |  |",
        "",
        "Seen once.",
    ]


def test_json_keeps_all_digits() -> None:
    document = json.loads(json.dumps(STREAMS.document()))
    assert document["rows"][0] == {"streams": 1, "way": "a|b", "rate": 10.04, "rounds": [0.5, 1.0]}
    assert document["units"] == {"rate": "tokens/s"}
    assert document["bars"][0]["met"] is True
    assert document["details"] == {"rounds": [1, 2]}


@pytest.mark.parametrize(
    ("bar", "met"),
    [
        (Threshold("a", 0.97, 0.97), True),
        (Threshold("a", 0.9699, 0.97), False),
        (Threshold("a", 2.0, 2.0, "at most"), True),
        (Threshold("a", 2.1, 2.0, "at most"), False),
    ],
)
def test_a_bar_is_met_where_it_is_reached(bar: Threshold, met: bool) -> None:
    assert bar.met is met


def test_bars_are_shown_with_their_sense_and_unit() -> None:
    table = thresholds_table([Threshold("added", 1.25, 2.0, "at most", "ms", 1), Threshold("ratio", 0.9, 0.97)])
    assert table.rows == [("added", "≤ 2 ms", "1.2 ms", "yes"), ("ratio", "≥ 0.97", "0.900", "**no**")]


def test_a_table_whose_parts_disagree_is_refused() -> None:
    with pytest.raises(ValueError, match="3 cells for 1 columns"):
        Table("t", (Column("a"),), [(1, 2, 3)])
    with pytest.raises(ValueError, match="one name"):
        Table("t", (Column("a"), Column("a")), [])
    with pytest.raises(ValueError, match="a plot wants"):
        Table("t", (Column("a"),), [], plots=(Plot("a", ("b",)),))
