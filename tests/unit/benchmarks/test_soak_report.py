"""The tables of the soak: growth between windows, slowdown between thirds, and the thresholds that are missed."""

from collections import Counter

import pytest

from benchmarks.soak import report
from benchmarks.soak.burst import Burst
from benchmarks.soak.deployment import BURST
from benchmarks.soak.load import RequestCounts
from benchmarks.soak.outage import Outage
from benchmarks.soak.resources import ResourceUsage, first_and_last, growth_percent, median_usage
from benchmarks.tables import Table


def usage(
    seconds: float = 0, gateway: float = 100, models: float = 1000, files: int = 40, processes: int = 9
) -> ResourceUsage:
    return ResourceUsage(seconds, gateway, 50, models, files, 120, 20, 360, processes, gateway)


def missed(table: Table) -> set[str]:
    return {threshold.name for threshold in table.thresholds if not threshold.met}


def test_a_single_outlier_is_not_growth() -> None:
    steady = [usage(number) for number in range(40)]
    with_spike = [*steady[:39], usage(39, gateway=500)]
    first, last = first_and_last(with_spike)
    assert (first.gateway, last.gateway) == (100, 100)
    assert not missed(report.over_time(with_spike))


@pytest.mark.parametrize(("slope", "grows"), [(0.1, False), (0.3, True), (-1.0, False)])
def test_steady_growth_misses_the_threshold(slope: float, grows: bool) -> None:
    samples = [usage(number, gateway=100 + slope * number) for number in range(40)]
    assert missed(report.over_time(samples)) == ({"growth of gateway under load"} if grows else set())


def test_leaked_files_miss_the_threshold_under_load() -> None:
    samples = [usage(number, files=60 + number % 3) for number in range(40)]
    assert not missed(report.over_time(samples))
    leaking = [usage(number, files=60 + number // 4) for number in range(40)]
    assert missed(report.over_time(leaking)) == {"growth of open files of the gateway under load"}


def test_growth_is_a_percentage() -> None:
    assert growth_percent(200, 210) == pytest.approx(5) and growth_percent(200, 190) == pytest.approx(-5)


def test_each_value_has_its_own_median() -> None:
    median = median_usage([usage(0, 1, 30), usage(1, 3, 10), usage(2, 2, 20)])
    assert (median.gateway, median.models) == (2, 20)


def test_the_table_over_time_is_bounded_and_the_json_has_every_sample() -> None:
    samples = [usage(number) for number in range(1000)]
    table = report.over_time(samples)
    assert 30 <= len(table.rows) <= report.MAX_ROWS and len(table.details["samples"]) == 1000
    assert {plot.over for plot in table.plots} == {"time"} and len(table.plots) == 3


def test_files_memory_processes_and_work_in_progress_have_thresholds_at_rest() -> None:
    assert not missed(report.at_rest(usage(), usage(files=42), {}))
    assert missed(report.at_rest(usage(), usage(files=43), {})) == {"more open files of the gateway at rest"}
    assert missed(report.at_rest(usage(), usage(processes=10), {})) == {"more processes at rest"}
    assert missed(report.at_rest(usage(), usage(models=1060), {})) == {"growth of models at rest"}
    assert missed(report.at_rest(usage(), usage(), {"llm_rows_active": 1})) == {"rows, texts and requests in progress"}


def test_the_slowdown_compares_the_last_third_with_the_first() -> None:
    def counts(last: float) -> RequestCounts:
        slowness = [(float(second), last if second >= 200 else 1.0) for second in range(300)]
        return RequestCounts(slowness=slowness)

    assert report.slowdown(counts(1.0), 300) == 1 and report.slowdown(counts(3.0), 300) == 3
    few = RequestCounts(slowness=[(0.0, 1.0), (299.0, 9.0)])
    assert report.slowdown(few, 300) is None, "two answers are too few"
    assert {threshold.name for threshold in report.requests(counts(3.0), 300).thresholds} >= {
        "slowdown of answers, last third ÷ first third"
    }
    table = report.requests(few, 300)
    names = [threshold.name for threshold in table.thresholds]
    assert names == ["requests with a fault"] and "too few" in table.notes[-1]


def test_every_fault_is_counted() -> None:
    counts = RequestCounts(Counter({"chat": 3}), Counter({"invalid": 2}), Counter({"disconnected": 1}))
    assert not missed(report.requests(counts, 60))
    counts.fault("chat", "x" * 1000)
    table = report.requests(counts, 60)
    assert missed(table) == {"requests with a fault"} and table.values("faults")[-1] == 1
    assert max(map(len, table.notes)) <= 600


def test_every_request_of_a_burst_must_be_answered() -> None:
    assert not missed(report.bursts([Burst("chats", BURST)], []))
    assert missed(report.bursts([Burst("chats", BURST - 1)], [])) == {"chats of the burst that were answered"}


def test_an_outage_meets_its_threshold_without_faults() -> None:
    assert not missed(report.outages(Outage(num_cut=3, num_refused=9), []))
    assert missed(report.outages(Outage(faults=["it hung"]), [])) == {"faults of the outage"}
