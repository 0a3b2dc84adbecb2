"""No attack costs another caller more than its share: each kind, on one worker, and the costly ones on two."""

import pytest

from tests.attack.cases import ALL_CASES
from tests.attack.cases.case import AttackCase
from tests.attack.gateways import GatewayPool
from tests.attack.runner import AttackResult, run_attack

CASES = [pytest.param(kind, 1, id=kind.name) for kind in ALL_CASES]
CASES += [pytest.param(kind, 2, id=f"{kind.name}, two workers") for kind in ALL_CASES if kind.runs_on_two_workers]


@pytest.mark.parametrize(("kind", "workers"), CASES)
def test_attack(gateways: GatewayPool, tried: list[AttackResult], kind: AttackCase, workers: int) -> None:
    found = run_attack(gateways, kind, workers)
    if found.is_inconclusive():
        found = run_attack(gateways, kind, workers)
    tried.append(found)
    assert not found.problems()
