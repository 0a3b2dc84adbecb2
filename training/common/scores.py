"""Scores of an evaluation: how many generated outputs meet each criterion of a judge."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EvaluationScores:
    """Share of outputs that meet each criterion, 0 to 1, by group and for `all` of them.

    `pass_rates` has a mapping for each group. Its keys are the criteria, and `counted`, whose value is the number of
    outputs in the group. `seconds` is the time that one output took.
    """

    group_title: str
    counted: str
    pass_rates: dict[str, dict[str, float]]
    seconds: float

    def table(self) -> str:
        """Return the scores as a Markdown table."""
        criteria = [name for name in self.pass_rates["all"] if name != self.counted]
        lines = [f"| {self.group_title} | {self.counted} | " + " | ".join(criteria) + " |"]
        lines.append("|---|" + "---|" * (len(criteria) + 1))
        for group, rates in self.pass_rates.items():
            figures = " | ".join(f"{rates[criterion]:.3f}" for criterion in criteria)
            lines.append(f"| {group} | {rates[self.counted]:.0f} | {figures} |")
        return "\n".join(lines)


def score_groups(
    verdicts: Sequence[tuple[str, Mapping[str, bool]]],
    criteria: Iterable[str],
    groups: Iterable[str],
    *,
    group_title: str,
    counted: str,
    seconds: float,
) -> EvaluationScores:
    """Return the scores of `verdicts`: pairs of a group and of what a judge says about one output.

    The scores are of `criteria` and of `all`, which every verdict has. `groups` is the order of the rows after `all`. A
    group without outputs has no row.
    """
    scored = (*criteria, "all")
    rates: dict[str, dict[str, float]] = {}
    for group in ("all", *groups):
        members = [verdict for name, verdict in verdicts if group in ("all", name)]
        if members:
            rates[group] = {
                criterion: sum(verdict[criterion] for verdict in members) / len(members) for criterion in scored
            }
            rates[group][counted] = len(members)
    return EvaluationScores(group_title, counted, rates, seconds)
