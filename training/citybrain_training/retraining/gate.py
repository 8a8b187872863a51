"""The gate: whether a challenger takes the champion's place, and why."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from citybrain_datasets.signals import KINDS
from citybrain_training.retraining.comparison import ERROR, INSIDE, Comparison


class GateRule(BaseModel):
    """What is asked of a challenger. Its error must be lower beyond doubt; nothing else may get worse."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    least_blocks: int = Field(5, gt=1)
    """Independent pieces of time below which nothing is beyond doubt."""
    coverage_tolerance: float = Field(0.02, ge=0, lt=1)
    """How far coverage may be from what is promised, where the champion's is not farther."""
    group_tolerance: float = Field(0.02, ge=0)
    """Share by which a group's error may rise even where it rises beyond doubt."""
    event_tolerance: float = Field(0.02, ge=0)
    """The same for the Brier score of an event."""


@dataclass(frozen=True)
class Check:
    """One question to the challenger and its answer in words."""

    name: str
    passed: bool
    reason: str


@dataclass(frozen=True)
class Verdict:
    """The gate's answer; it passes where every check does."""

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    def markdown(self) -> str:
        """A chapter of the model card."""
        head = "passed" if self.passed else "not passed"
        rows = [f"- {'✓' if check.passed else '✗'} {check.name}: {check.reason}" for check in self.checks]
        return "\n".join([f"## Gate: {head}", *rows]) + "\n"

    def plain(self) -> dict[str, object]:
        """For a JSON file."""
        return {"passed": self.passed, "checks": [vars(check) for check in self.checks]}


def judge(comparison: Comparison, rule: GateRule) -> Verdict:
    """Holds a comparison against a rule. Intervals are 95 %, by paired block bootstrap over days."""
    windows = _enough(comparison, rule)
    if not windows.passed:
        return Verdict((windows,))
    return Verdict((windows, _error(comparison), _coverage(comparison, rule), _events(comparison, rule),
                    _groups(comparison, rule)))  # fmt: skip


def enough(days: int, block: int, rule: GateRule, where: str = "") -> Check:
    """Whether so many measured days, in blocks of ``block`` days, are enough to judge by."""
    blocks = days // block
    text = f"{days} day{'s' * (days != 1)}, {blocks} block{'s' * (blocks != 1)} of {block} d{where}"
    return Check("windows", blocks >= rule.least_blocks, f"{text}; at least {rule.least_blocks} blocks are needed")


def _enough(comparison: Comparison, rule: GateRule) -> Check:
    return enough(comparison.days(ERROR), comparison.block_days, rule, f", at {comparison.nodes} nodes of both")


def _error(comparison: Comparison) -> Check:
    unit = KINDS[comparison.task.target].unit
    ours, theirs, _ = comparison.means(ERROR)
    gap = comparison.difference(ERROR)
    text = f"{ours:.4g} against {theirs:.4g} {unit}, difference {gap.mean:+.3g} ({gap.low:+.3g} … {gap.high:+.3g})"
    return Check("mean absolute error", gap.high < 0, text)


def _coverage(comparison: Comparison, rule: GateRule) -> Check:
    promised = comparison.task.quantiles[-1] - comparison.task.quantiles[0]
    ours, theirs, _ = comparison.means(INSIDE)
    passed = abs(ours - promised) <= max(abs(theirs - promised), rule.coverage_tolerance)
    return Check("coverage", passed, f"{ours:.1%} against {theirs:.1%}, promised {promised:.0%}")


def _events(comparison: Comparison, rule: GateRule) -> Check:
    worse, told = _worse(comparison, "event", rule.event_tolerance, rule)
    return Check("events (Brier)", not worse, "; ".join(worse or told) or "none in these windows")


def _groups(comparison: Comparison, rule: GateRule) -> Check:
    worse, told = _worse(comparison, "group", rule.group_tolerance, rule)
    return Check("worst node group", not worse, "; ".join(worse or told[:1]) or "no groups")


def _worse(comparison: Comparison, kind: str, tolerance: float, rule: GateRule) -> tuple[list[str], list[str]]:
    """Texts of what got worse beyond doubt and beyond tolerance, and of everything, the worst change first. Of what is
    known on too few days nothing is beyond doubt."""
    found = []
    for name in comparison.names(kind):
        ours, theirs, _ = comparison.means(name)
        change = ours / max(theirs, 1e-12) - 1
        text = f"{name.removeprefix(f'{kind} ')} {ours:.4g} against {theirs:.4g} ({change:+.1%})"
        bad = (
            change > tolerance
            and enough(comparison.days(name), comparison.block_days, rule).passed
            and comparison.difference(name).low > 0
        )
        found.append((change, bad, text))
    found.sort(key=lambda item: -item[0])
    return [text for _, bad, text in found if bad], [text for *_, text in found]
