"""No attack costs another caller more than its share: each kind, on one worker, and the costly ones on two."""

import pytest

from tests.attack.kinds import ALL
from tests.attack.kinds.kind import Kind
from tests.attack.serving import Gateways
from tests.attack.trying import Tried, try_kind

CASES = [pytest.param(kind, 1, id=kind.name) for kind in ALL]
CASES += [pytest.param(kind, 2, id=f"{kind.name}, two workers") for kind in ALL if kind.costly]


@pytest.mark.parametrize(("kind", "workers"), CASES)
def test_attack(gateways: Gateways, tried: list[Tried], kind: Kind, workers: int) -> None:
    found = try_kind(gateways, kind, workers)
    if found.doubtful():
        found = try_kind(gateways, kind, workers)
    tried.append(found)
    assert not found.wrong()
