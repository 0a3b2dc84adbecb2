"""The limits of attacks, each of which can be missed, and the table of results."""

import io
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from tests.attack.cases import ALL_CASES, images
from tests.attack.cases.case import REFUSAL_STATUSES, AttackCase, Target
from tests.attack.cost_meter import MAX_FREEZE_SECONDS, MAX_OBSERVED_FREEZE_SECONDS, MAX_PEAK_MB, MAX_RETAINED_MB, Cost
from tests.attack.gateways import SETUPS
from tests.attack.honest_client import REQUESTS, percentile
from tests.attack.raw_http import CONNECTION_CLOSED, TIMED_OUT
from tests.attack.runner import MAX_LATENCY_SECONDS, AttackResult, markdown_table


def attack_result(cost: Cost | None = None, **more: Any) -> AttackResult:
    kind = AttackCase("JSON: a body", lambda target: None)
    target = Target(SimpleNamespace())  # type: ignore[arg-type]
    result = AttackResult(kind, 1, target, cost or Cost(num_holds=0), honest_latencies={"chat": [0.01] * 20})
    for name, value in more.items():
        setattr(result, name, value)
    return result


def test_what_is_within_all_limits_is_well() -> None:
    well = attack_result(Cost(freeze_seconds=0.3, num_holds=0, peak_mb=MAX_PEAK_MB, retained_mb=MAX_RETAINED_MB))
    well.target.record(400, b"no")
    assert well.problems() == [] and not well.is_inconclusive()


@pytest.mark.parametrize(
    ("cost", "sentence"),
    [
        (Cost(num_holds=2), "held for more than 0.1 s 2 times"),
        (Cost(num_holds=None, freeze_seconds=MAX_FREEZE_SECONDS + 0.01), "held for 0.11 s"),
        (Cost(num_holds=0, freeze_seconds=MAX_OBSERVED_FREEZE_SECONDS + 0.1), "held for 0.60 s"),
        (Cost(num_holds=0, peak_mb=MAX_PEAK_MB + 1), "257 MB were taken"),
        (Cost(num_holds=0, retained_mb=MAX_RETAINED_MB + 1), "129 MB were kept"),
        (Cost(num_holds=0, dead_pids=[7]), "processes [7] of the gateway ended"),
    ],
)
def test_each_limit_can_be_missed(cost: Cost, sentence: str) -> None:
    (problem,) = attack_result(cost).problems()
    assert sentence in problem


@pytest.mark.parametrize("status", [500, 502, 200, CONNECTION_CLOSED, TIMED_OUT])
def test_statuses_that_an_attack_may_not_come_to(status: int) -> None:
    found = attack_result()
    found.target.record(status, b"why")
    assert status not in REFUSAL_STATUSES and str(status) in found.problems()[0]


def test_a_neighbour_may_neither_be_lost_nor_wait() -> None:
    assert attack_result(failures=["chat: 503 after 0.01 s"]).problems() == ["chat: 503 after 0.01 s"]
    assert len(attack_result(failures=["chat: 503"] * 9).problems()) == 6
    slow = {"chat": [0.01] * 50 + [MAX_LATENCY_SECONDS["chat"] * 3] * 2}
    assert "an honest chat took" in attack_result(honest_latencies=slow).problems()[0]


def test_only_a_short_hold_is_tried_again() -> None:
    assert attack_result(Cost(num_holds=1, freeze_seconds=0.12)).is_inconclusive()
    assert (
        not attack_result(Cost(num_holds=2, freeze_seconds=0.12)).is_inconclusive()
        and not attack_result(Cost(num_holds=1, freeze_seconds=0.4)).is_inconclusive()
    )
    assert not attack_result(Cost(num_holds=1, retained_mb=MAX_RETAINED_MB + 1)).is_inconclusive()


def test_the_table_has_a_line_for_each() -> None:
    found = attack_result(Cost(0.012, 0, 33.3, -2.0), seconds=1.25, failures=["chat: 503"])
    found.target.record(413, b"")
    found.target.record(CONNECTION_CLOSED)
    found.target.sent_bytes = 3 * 2**20
    line = markdown_table([found, attack_result(Cost(dead_pids=[3]))]).splitlines()[2]
    assert line == (
        "| JSON: a body | 1 | 3.00 MB | closed x 1, 413 x 1 | 1.2 s | 12 ms | 0 | 33 MB | -2 MB "
        "| 10 ms | 10 ms, 1 lost |"
    )


def test_percentiles() -> None:
    assert percentile([], 0.5) == 0 and percentile([3.0], 0.99) == 3
    assert percentile([float(n) for n in range(101)], 0.5) == 50
    assert percentile([0.0] * 99 + [10.0], 0.99) > 0


def test_attacks_are_what_they_say() -> None:
    assert len({kind.name for kind in ALL_CASES}) == len(ALL_CASES)
    assert all(
        kind.setup in SETUPS and set(kind.honest_requests) <= set(REQUESTS) == set(MAX_LATENCY_SECONDS)
        for kind in ALL_CASES
    )
    assert not any(500 in kind.statuses for kind in ALL_CASES)
    assert sum(kind.runs_on_two_workers for kind in ALL_CASES) > 20


def test_the_jpeg_is_one() -> None:
    """A decoder decodes all of its scans. The refusal of a broken file would prove nothing."""
    data = images.progressive_jpeg(40, 64)
    with Image.open(io.BytesIO(data)) as picture:
        picture.load()
        assert (picture.format, picture.size, picture.info["progressive"]) == ("JPEG", (64, 64), 1)
    assert data.count(b"\xff\xda") == 41
