"""No attack costs other callers more than their share: each attack on one worker, and the costly ones on two."""

import pytest

from tests.attack.cases import ALL_CASES
from tests.attack.cases.case import AttackCase
from tests.attack.gateways import GatewayPool
from tests.attack.runner import AttackResult, run_attack

CASES = [pytest.param(case, 1, id=case.name) for case in ALL_CASES]
CASES += [pytest.param(case, 2, id=f"{case.name}, two workers") for case in ALL_CASES if case.runs_on_two_workers]


@pytest.mark.parametrize(("case", "workers"), CASES)
def test_attack(gateways: GatewayPool, results: list[AttackResult], case: AttackCase, workers: int) -> None:
    result = run_attack(gateways, case, workers)
    if result.is_inconclusive():
        result = run_attack(gateways, case, workers)
    results.append(result)
    assert not result.problems()
