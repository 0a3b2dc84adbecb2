"""What the soak makes of its series: growth by windows, slowness by thirds, bars that are missed where they must be."""

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
    return {bar.name for bar in table.thresholds if not bar.met}


def test_a_single_look_is_chance() -> None:
    steady = [usage(number) for number in range(40)]
    spikes = [*steady[:39], usage(39, gateway=500)]
    first, last = first_and_last(spikes)
    assert (first.gateway, last.gateway) == (100, 100)
    assert not missed(report.over_time(spikes))


@pytest.mark.parametrize(("slope", "grows"), [(0.1, False), (0.3, True), (-1.0, False)])
def test_steady_growth_is_seen(slope: float, grows: bool) -> None:
    seen = [usage(number, gateway=100 + slope * number) for number in range(40)]
    assert missed(report.over_time(seen)) == ({"growth of gateway under load"} if grows else set())


def test_files_that_stay_open_are_seen_under_load() -> None:
    seen = [usage(number, files=60 + number % 3) for number in range(40)]
    assert not missed(report.over_time(seen))
    leaking = [usage(number, files=60 + number // 4) for number in range(40)]
    assert missed(report.over_time(leaking)) == {"growth of files of the gateway under load"}


def test_growth_is_in_percent() -> None:
    assert growth_percent(200, 210) == pytest.approx(5) and growth_percent(200, 190) == pytest.approx(-5)


def test_each_figure_has_its_own_median() -> None:
    found = median_usage([usage(0, 1, 30), usage(1, 3, 10), usage(2, 2, 20)])
    assert (found.gateway, found.models) == (2, 20)


def test_the_table_over_time_is_bounded_and_keeps_every_look_for_the_json() -> None:
    seen = [usage(number) for number in range(1000)]
    table = report.over_time(seen)
    assert 30 <= len(table.rows) <= report.MAX_ROWS and len(table.details["every look"]) == 1000
    assert {plot.over for plot in table.plots} == {"time"} and len(table.plots) == 3


def test_rest_is_held_to_files_memory_and_what_is_under_way() -> None:
    assert not missed(report.at_rest(usage(), usage(files=42), {}))
    assert missed(report.at_rest(usage(), usage(files=43), {})) == {"more files of the gateway at rest"}
    assert missed(report.at_rest(usage(), usage(processes=10), {})) == {"more processes at rest"}
    assert missed(report.at_rest(usage(), usage(models=1060), {})) == {"growth of its models at rest"}
    assert missed(report.at_rest(usage(), usage(), {"llm_rows_active": 1})) == {
        "rows, texts and requests still under way"
    }


def test_slowness_compares_the_last_third_with_the_first() -> None:
    def tally(last: float) -> RequestCounts:
        moments = [(float(second), last if second >= 200 else 1.0) for second in range(300)]
        return RequestCounts(slowness=moments)

    assert report.slowdown(tally(1.0), 300) == 1 and report.slowdown(tally(3.0), 300) == 3
    few = RequestCounts(slowness=[(0.0, 1.0), (299.0, 9.0)])
    assert report.slowdown(few, 300) is None, "two answers say nothing"
    assert {bar.name for bar in report.requests(tally(3.0), 300).thresholds} >= {
        "how slow answers are, last third ÷ first"
    }
    told = report.requests(few, 300)
    assert [bar.name for bar in told.thresholds] == ["requests with a fault"] and "too few" in told.notes[-1]


def test_a_fault_of_any_kind_is_counted() -> None:
    tally = RequestCounts(Counter({"chat": 3}), Counter({"wrong": 2}), Counter({"hung up": 1}))
    assert not missed(report.requests(tally, 60))
    tally.fault("chat", "x" * 1000)
    table = report.requests(tally, 60)
    assert missed(table) == {"requests with a fault"} and table.values("faults")[-1] == 1
    assert max(map(len, table.notes)) <= 600


def test_a_crowd_must_be_answered_to_the_last() -> None:
    assert not missed(report.bursts([Burst("chats", BURST)], []))
    assert missed(report.bursts([Burst("chats", BURST - 1)], [])) == {"chats at once that were answered"}


def test_an_outage_without_faults_is_well() -> None:
    assert not missed(report.outages(Outage(num_cut=3, refused=9), []))
    assert missed(report.outages(Outage(faults=["it hung"]), [])) == {"faults of the outage"}
