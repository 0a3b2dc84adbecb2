"""No attack exceeds the limits. Each runs on a gateway with one worker, the costly ones on one with two as well."""

import pytest

from tests.attack.cases import ALL_CASES
from tests.attack.cases.case import AttackCase
from tests.attack.gateways import GatewayPool
from tests.attack.runner import AttackResult, run_attack

CASES = [pytest.param(case, 1, id=case.name) for case in ALL_CASES]
CASES += [pytest.param(case, 2, id=f"{case.name}, two workers") for case in ALL_CASES if case.runs_on_two_workers]


@pytest.mark.parametrize(("case", "workers"), CASES)
def test_an_attack_stays_within_the_limits(
    gateways: GatewayPool, results: list[AttackResult], case: AttackCase, workers: int
) -> None:
    result = run_attack(gateways, case, workers)
    if result.is_inconclusive():
        result = run_attack(gateways, case, workers)
    results.append(result)
    assert not result.problems()
