"""Attackers of the soak: the choice of attacks, the counts of results, and the thresholds of the tables."""

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


def usage(seconds: float = 0, gateway: float = 100, models: float = 1000, processes: int = 9) -> ResourceUsage:
    return ResourceUsage(seconds, gateway, 50, models, 40, 120, 20, 360, processes, gateway)


def missed(table: Table) -> set[str]:
    return {threshold.name for threshold in table.thresholds if not threshold.met}


def test_the_soak_runs_attacks_of_every_module_that_need_only_keys() -> None:
    cases = attackers.soak_attacks()
    assert {case.setup for case in cases} == {"keys"} and len(cases) > 60
    targets = {case.name.split(":")[0] for case in cases}
    assert targets >= {"JSON", "connections", "heads", "forms", "pictures", "documents", "data URLs", "structures"}


def test_the_gateway_accepts_the_attackers_key_only_with_attackers() -> None:
    assert environment(attacked=False) == ENVIRONMENT and attackers.ATTACKER not in ENVIRONMENT["TRITONIC_API_KEYS"]
    attacked = environment(attacked=True)
    assert attacked["TRITONIC_API_KEYS"].split(",")[-1] == attackers.ATTACKER
    assert {"hello", "vectors"} <= {pair.split("=")[0] for pair in attacked["TRITONIC_MODEL_ALIASES"].split(",")}


def test_results_of_attacks_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attackers, "PAUSE", 0.01)

    def refused(target: Target) -> None:
        target.sent_bytes += 2**20
        target.record(400, b"no")

    def failed(target: Target) -> None:
        target.record(500, b"oh")

    def misbehaved(target: Target) -> None:
        raise AssertionError("it was executed")

    def disconnected(target: Target) -> None:
        raise ConnectionRefusedError("nobody listens")

    cases = [AttackCase("a", refused), AttackCase("b", failed)]
    cases += [AttackCase("c", misbehaved), AttackCase("d", disconnected)]
    results = attackers.attack(("127.0.0.1", 1), 0.5, 3, cases)
    assert set(results.attempts) == {"a", "b", "c", "d"}
    assert results.statuses == {"400": results.attempts["a"], "500": results.attempts["b"]}
    assert results.megabytes == results.attempts["a"]
    assert len(results.wrong) == results.attempts.total() - results.attempts["a"]
    unexpected = Counter(sentence.split(":")[0] for sentence in results.wrong)
    assert unexpected == {name: results.attempts[name] for name in "bcd"}
    assert attackers.from_json(results.to_json().encode()) == results


async def test_a_failed_attacker_process_raises_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="the attackers failed"):
        await attackers.run_attackers(1, 1.0, 1)
    assert sys.executable == "/bin/false"  # pytest restores it


def latencies(seconds: float, count: int = 100) -> list[tuple[float, float]]:
    """Return latencies within 10 % of `seconds`, requested one second apart."""
    rng = random.Random(1)
    return [(number, seconds * rng.uniform(0.9, 1.1)) for number in range(count)]


def test_honest_callers_are_compared_without_and_with_attackers() -> None:
    before, during = RequestCounts(), RequestCounts()
    before.seconds["chat"], during.seconds["chat"] = latencies(1.0), latencies(2.0)
    during.seconds["edit"] = latencies(3.0, 10)
    before.slowness, during.slowness = latencies(1.0), latencies(1.5)
    table = attack_report.with_and_without(before, during)
    ratios: dict[Any, Any] = dict(zip(table.values("request"), table.values("p50 with ÷ without"), strict=True))
    assert ratios["chat"] == pytest.approx(2, rel=0.1)
    assert ratios["edit"] is None, "ten answers are too few for a ratio"
    assert ratios[attack_report.ALL_REQUESTS] == pytest.approx(1.5, rel=0.1)


def test_memory_and_unexpected_responses_have_thresholds() -> None:
    samples = [usage(number, gateway=300) for number in range(20)]
    expected = AttackResults(Counter({"a": 3}), Counter({"400": 3}), 9.0)
    assert not missed(attack_report.attacks(expected, usage(), usage(gateway=220, models=1250), samples))
    assert missed(attack_report.attacks(expected, usage(), usage(gateway=230, models=2030), samples)) == {
        "growth of memory of the worker process at rest after attacks",
        "growth of memory of the models at rest after attacks",
    }
    high = [usage(number, gateway=400) for number in range(20)]
    assert missed(attack_report.attacks(expected, usage(), usage(), high)) == {
        "growth of memory of the worker process under attack"
    }
    wrong = AttackResults(Counter({"a": 1}), Counter({"500": 1}), 1.0, ["a: 500"])
    table = attack_report.attacks(wrong, usage(), usage(), samples)
    assert missed(table) == {"attacks with an unexpected result"} and "a: 500" in table.notes


def test_thresholds_that_attacks_exceed_by_their_nature_are_removed() -> None:
    table = report.at_rest(usage(), usage(gateway=500, models=2000, processes=12), {"rows_active": 1})
    assert len(missed(table)) == 4
    assert missed(attack_report.without_growth(table)) == {"rows, texts and requests in progress"}
