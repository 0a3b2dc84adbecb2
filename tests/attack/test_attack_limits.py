"""The limits of attacks, and the table of results."""

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


def attack_result(cost: Cost | None = None, **fields: Any) -> AttackResult:
    case = AttackCase("JSON: a body", lambda target: None)
    target = Target(SimpleNamespace())  # type: ignore[arg-type]
    result = AttackResult(case, 1, target, cost or Cost(num_holds=0), honest_latencies={"chat": [0.01] * 20})
    for name, value in fields.items():
        setattr(result, name, value)
    return result


def test_a_result_within_all_limits_has_no_problems() -> None:
    result = attack_result(Cost(freeze_seconds=0.3, num_holds=0, peak_mb=MAX_PEAK_MB, retained_mb=MAX_RETAINED_MB))
    result.target.record(400, b"no")
    assert result.problems() == [] and not result.is_inconclusive()


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
def test_a_result_beyond_a_limit_has_a_problem(cost: Cost, sentence: str) -> None:
    (problem,) = attack_result(cost).problems()
    assert sentence in problem


@pytest.mark.parametrize("status", [500, 502, 200, CONNECTION_CLOSED, TIMED_OUT])
def test_a_status_that_is_not_a_refusal_is_a_problem(status: int) -> None:
    result = attack_result()
    result.target.record(status, b"why")
    assert status not in REFUSAL_STATUSES and str(status) in result.problems()[0]


def test_lost_and_slow_honest_requests_are_problems() -> None:
    assert attack_result(failures=["chat: 503 after 0.01 s"]).problems() == ["chat: 503 after 0.01 s"]
    assert len(attack_result(failures=["chat: 503"] * 9).problems()) == 6
    slow = {"chat": [0.01] * 50 + [MAX_LATENCY_SECONDS["chat"] * 3] * 2}
    assert "an honest chat took" in attack_result(honest_latencies=slow).problems()[0]


def test_only_a_result_with_one_short_block_is_inconclusive() -> None:
    assert attack_result(Cost(num_holds=1, freeze_seconds=0.12)).is_inconclusive()
    assert (
        not attack_result(Cost(num_holds=2, freeze_seconds=0.12)).is_inconclusive()
        and not attack_result(Cost(num_holds=1, freeze_seconds=0.4)).is_inconclusive()
    )
    assert not attack_result(Cost(num_holds=1, retained_mb=MAX_RETAINED_MB + 1)).is_inconclusive()


def test_the_table_has_a_line_for_each_result() -> None:
    result = attack_result(Cost(0.012, 0, 33.3, -2.0), seconds=1.25, failures=["chat: 503"])
    result.target.record(413, b"")
    result.target.record(CONNECTION_CLOSED)
    result.target.sent_bytes = 3 * 2**20
    line = markdown_table([result, attack_result(Cost(dead_pids=[3]))]).splitlines()[2]
    assert line == (
        "| JSON: a body | 1 | 3.00 MB | closed x 1, 413 x 1 | 1.2 s | 12 ms | 0 | 33 MB | -2 MB "
        "| 10 ms | 10 ms, 1 lost |"
    )


def test_percentiles_of_latencies() -> None:
    assert percentile([], 0.5) == 0 and percentile([3.0], 0.99) == 3
    assert percentile([float(n) for n in range(101)], 0.5) == 50
    assert percentile([0.0] * 99 + [10.0], 0.99) > 0


def test_cases_have_unique_names_and_known_setups_and_requests() -> None:
    assert len({case.name for case in ALL_CASES}) == len(ALL_CASES)
    assert all(
        case.setup in SETUPS and set(case.honest_requests) <= set(REQUESTS) == set(MAX_LATENCY_SECONDS)
        for case in ALL_CASES
    )
    assert not any(500 in case.statuses for case in ALL_CASES)
    assert sum(case.runs_on_two_workers for case in ALL_CASES) > 20


def test_the_progressive_jpeg_is_valid() -> None:
    """A decoder must decode all of its scans, because the refusal of a broken file would prove nothing."""
    data = images.progressive_jpeg(40, 64)
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        assert (image.format, image.size, image.info["progressive"]) == ("JPEG", (64, 64), 1)
    assert data.count(b"\xff\xda") == 41
