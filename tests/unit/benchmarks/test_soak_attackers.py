"""Attackers of the soak: which attacks they choose, what they count, and what their tables hold the gateway to."""

import random
import sys
from collections import Counter
from typing import Any

import pytest

from benchmarks.soak import attack_report, attackers, report
from benchmarks.soak.attackers import AttackResults
from benchmarks.soak.deployment import ENVIRONMENT, environment
from benchmarks.soak.load import RequestCounts
from benchmarks.soak.resources import ResourceUsage
from benchmarks.tables import Table
from tests.attack.cases.case import AttackCase, Target


def held(seconds: float = 0, gateway: float = 100, models: float = 1000, processes: int = 9) -> ResourceUsage:
    return ResourceUsage(seconds, gateway, 50, models, 40, 120, 20, 360, processes, gateway)


def missed(table: Table) -> set[str]:
    return {bar.name for bar in table.thresholds if not bar.met}


def test_attacks_of_every_module_are_chosen_and_none_that_needs_another_gateway() -> None:
    chosen = attackers.soak_attacks()
    assert {kind.setup for kind in chosen} == {"keys"} and len(chosen) > 60
    words = {kind.name.split(":")[0] for kind in chosen}
    assert words >= {"JSON", "connections", "heads", "forms", "pictures", "documents", "data URLs", "structures"}


def test_the_gateway_knows_attackers_only_where_there_are_some() -> None:
    assert environment(attacked=False) == ENVIRONMENT and attackers.ATTACKER not in ENVIRONMENT["TRITONIC_API_KEYS"]
    attacked = environment(attacked=True)
    assert attacked["TRITONIC_API_KEYS"].split(",")[-1] == attackers.ATTACKER
    assert {"hello", "vectors"} <= {pair.split("=")[0] for pair in attacked["TRITONIC_MODEL_ALIASES"].split(",")}


def test_what_becomes_of_attacks_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attackers, "PAUSE", 0.01)

    def refused(target: Target) -> None:
        target.sent_bytes += 2**20
        target.record(400, b"no")

    def failed(target: Target) -> None:
        target.record(500, b"oh")

    def found(target: Target) -> None:
        raise AssertionError("it was executed")

    def gone(target: Target) -> None:
        raise ConnectionRefusedError("nobody listens")

    kinds = [AttackCase("a", refused), AttackCase("b", failed), AttackCase("c", found), AttackCase("d", gone)]
    attacked = attackers.attack(("127.0.0.1", 1), 0.5, 3, kinds)
    assert set(attacked.attempts) == {"a", "b", "c", "d"}
    assert attacked.statuses == {"400": attacked.attempts["a"], "500": attacked.attempts["b"]}
    assert attacked.megabytes == attacked.attempts["a"]
    assert len(attacked.wrong) == attacked.attempts.total() - attacked.attempts["a"]
    said = Counter(sentence.split(":")[0] for sentence in attacked.wrong)
    assert said == {name: attacked.attempts[name] for name in "bcd"}
    assert attackers.from_json(attacked.to_json().encode()) == attacked


async def test_attackers_that_fail_are_no_attackers_that_found_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attackers.sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="the attackers failed"):
        await attackers.run_attackers(1, 1.0, 1)
    assert sys.executable == "/bin/false"  # the same module, put right by pytest


def moments(seconds: float, count: int = 100) -> list[tuple[float, float]]:
    chance = random.Random(1)
    return [(number, seconds * chance.uniform(0.9, 1.1)) for number in range(count)]


def test_honest_callers_are_compared_with_themselves() -> None:
    quiet, under = RequestCounts(), RequestCounts()
    quiet.seconds["chat"], under.seconds["chat"] = moments(1.0), moments(2.0)
    under.seconds["edit"] = moments(3.0, 10)
    quiet.slowness, under.slowness = moments(1.0), moments(1.5)
    table = attack_report.with_and_without(quiet, under)
    ratios: dict[Any, Any] = dict(zip(table.values("request"), table.values("p50 with ÷ without"), strict=True))
    assert ratios["chat"] == pytest.approx(2, rel=0.1)
    assert ratios["edit"] is None, "ten answers say nothing"
    assert ratios["all, as multiples of what each took alone"] == pytest.approx(1.5, rel=0.1)


def test_memory_and_wrong_answers_are_held_to_bars() -> None:
    seen = [held(number, gateway=300) for number in range(20)]
    well = AttackResults(Counter({"a": 3}), Counter({"400": 3}), 9.0)
    assert not missed(attack_report.attacks(well, held(), held(gateway=220, models=1250), seen))
    assert missed(attack_report.attacks(well, held(), held(gateway=230, models=2030), seen)) == {
        "more memory of the process that answers at rest after attacks",
        "more memory of its models at rest after attacks",
    }
    high = [held(number, gateway=400) for number in range(20)]
    assert missed(attack_report.attacks(well, held(), held(), high)) == {
        "memory of the process that answers, under attack"
    }
    wrong = AttackResults(Counter({"a": 1}), Counter({"500": 1}), 1.0, ["a: 500"])
    table = attack_report.attacks(wrong, held(), held(), seen)
    assert missed(table) == {"attacks that went otherwise than they must"} and "a: 500" in table.notes


def test_bars_that_attacks_miss_by_their_nature_are_left_out() -> None:
    before = report.at_rest(held(), held(gateway=500, models=2000, processes=12), {"rows_active": 1})
    assert len(missed(before)) == 4
    assert missed(attack_report.without_growth(before)) == {"rows, texts and requests still under way"}
