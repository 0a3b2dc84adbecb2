"""What the suite holds against an attack, and how it writes it down: each limit is one that can be missed."""

import io
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from tests.attack.kinds import ALL, pictures
from tests.attack.kinds.kind import REFUSED, Kind, Target
from tests.attack.measuring import FREEZE, FREEZE_SEEN, KEPT, PEAK, Cost
from tests.attack.neighbour import REQUESTS, percentile
from tests.attack.serving import SETUPS
from tests.attack.trying import PATIENCE, Tried, table
from tests.attack.wire import GONE, HANGS


def tried(cost: Cost | None = None, **more: Any) -> Tried:
    kind = Kind("JSON: a body", lambda target: None)
    found = Tried(kind, 1, Target(SimpleNamespace()), cost or Cost(held=0), neighbour={"chat": [0.01] * 20})  # type: ignore[arg-type]
    for name, value in more.items():
        setattr(found, name, value)
    return found


def test_what_is_within_all_limits_is_well() -> None:
    well = tried(Cost(freeze=0.3, held=0, peak=PEAK, kept=KEPT))
    well.target.note(400, b"no")
    assert well.wrong() == [] and not well.doubtful()


@pytest.mark.parametrize(
    ("cost", "sentence"),
    [
        (Cost(held=2), "held for more than 0.1 s 2 times"),
        (Cost(held=None, freeze=FREEZE + 0.01), "held for 0.11 s"),
        (Cost(held=0, freeze=FREEZE_SEEN + 0.1), "held for 0.60 s"),
        (Cost(held=0, peak=PEAK + 1), "257 MB were taken"),
        (Cost(held=0, kept=KEPT + 1), "129 MB were kept"),
        (Cost(held=0, died=[7]), "processes [7] of the gateway ended"),
    ],
)
def test_each_limit_can_be_missed(cost: Cost, sentence: str) -> None:
    (said,) = tried(cost).wrong()
    assert sentence in said


@pytest.mark.parametrize("status", [500, 502, 200, GONE, HANGS])
def test_statuses_that_an_attack_may_not_come_to(status: int) -> None:
    found = tried()
    found.target.note(status, b"why")
    assert status not in REFUSED and str(status) in found.wrong()[0]


def test_a_neighbour_may_neither_be_lost_nor_wait() -> None:
    assert tried(failures=["chat: 503 after 0.01 s"]).wrong() == ["chat: 503 after 0.01 s"]
    assert len(tried(failures=["chat: 503"] * 9).wrong()) == 6
    slow = {"chat": [0.01] * 50 + [PATIENCE["chat"] * 3] * 2}
    assert "an honest chat took" in tried(neighbour=slow).wrong()[0]


def test_only_a_short_hold_is_tried_again() -> None:
    assert tried(Cost(held=1, freeze=0.12)).doubtful()
    assert not tried(Cost(held=2, freeze=0.12)).doubtful() and not tried(Cost(held=1, freeze=0.4)).doubtful()
    assert not tried(Cost(held=1, kept=KEPT + 1)).doubtful()


def test_the_table_has_a_line_for_each() -> None:
    found = tried(Cost(0.012, 0, 33.3, -2.0), seconds=1.25, failures=["chat: 503"])
    found.target.note(413, b"")
    found.target.note(GONE)
    found.target.sent = 3 * 2**20
    line = table([found, tried(Cost(died=[3]))]).splitlines()[2]
    assert line == (
        "| JSON: a body | 1 | 3.00 MB | closed x 1, 413 x 1 | 1.2 s | 12 ms | 0 | 33 MB | -2 MB "
        "| 10 ms | 10 ms, 1 lost |"
    )


def test_percentiles() -> None:
    assert percentile([], 0.5) == 0 and percentile([3.0], 0.99) == 3
    assert percentile([float(n) for n in range(101)], 0.5) == 50
    assert percentile([0.0] * 99 + [10.0], 0.99) > 0


def test_attacks_are_what_they_say() -> None:
    assert len({kind.name for kind in ALL}) == len(ALL)
    assert all(kind.setup in SETUPS and set(kind.beside) <= set(REQUESTS) == set(PATIENCE) for kind in ALL)
    assert not any(500 in kind.statuses for kind in ALL)
    assert sum(kind.costly for kind in ALL) > 20


def test_the_jpeg_is_one() -> None:
    """A decoder takes all of its scans: were it broken, its refusal would say nothing."""
    data = pictures.scans(40, 64)
    with Image.open(io.BytesIO(data)) as picture:
        picture.load()
        assert (picture.format, picture.size, picture.info["progressive"]) == ("JPEG", (64, 64), 1)
    assert data.count(b"\xff\xda") == 41
