"""The robustness chapter of ``docs/benchmarks.md``, from the flat records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from citybrain_datasets.records import Record, uncommitted

OURS, NEAREST = "citynet", "nearest sensors"
UNSEEN = "sensors never seen"
WHOLE = ": had nothing broken"


def practised(share: float) -> str:
    """What our network is called where that share of its batches was disturbed."""
    return f"{OURS}, {100 * share:.0f} % of batches disturbed"


Row = dict[str, float]
"""Mean absolute error by subject."""


def by_place(records: Sequence[Record]) -> dict[tuple[str, str], Row]:
    """The values by scenario and part, then by subject; the mean where several seeds measured the same."""
    values: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        values[record["scenario"], record["part"]][record["subject"]].append(record["value"])
    return {place: {name: float(np.mean(found)) for name, found in row.items()} for place, row in values.items()}


def markdown(records: Sequence[Record]) -> str:
    """A table a case: errors where it broke and elsewhere, and how much worse than had nothing broken."""
    parts = [
        "## Robustness",
        "",
        "Mean absolute error over all leads on the test windows, when the feed breaks. “Hit” are the sensors that it "
        "happens to, scored against what they would have measured; “against whole” is our error over that of the same "
        "network at the same sensors and windows with nothing broken.",
    ]
    for case in dict.fromkeys(record["case"] for record in records):
        parts += ["", *_case(case, [record for record in records if record["case"] == case])]
    return "\n".join(parts)


def _case(case: str, records: Sequence[Record]) -> list[str]:
    mae = [record for record in records if record["metric"] == "mae"]
    rows = by_place(mae)
    coverage = by_place([record for record in records if record["metric"] == "coverage"])
    broken = {place: row for place, row in rows.items() if not place[0].endswith(WHOLE) and place[0] != UNSEEN}
    subjects = list(dict.fromkeys(name for row in broken.values() for name in row))
    head = ["scenario", "at", *(f"**{name}**" if name == OURS else name for name in subjects)]
    lines = [f"### {case}, {mae[0]['unit']}", "", _row([*head, "against whole", "90 % interval covers"])]
    lines.append(_row(["---", "---", *["---:"] * (len(subjects) + 2)]))
    for (scenario, part), row in broken.items():
        # What sensors nearby say is asked of the places that were hit alone.
        shown = {name: row[name] for name in row if name != NEAREST or part == "hit"}
        cells = [f"{shown[name]:.3f}" if name in shown else "" for name in subjects]
        whole = rows.get((scenario + WHOLE, part)) or (rows["whole", "all"] if part == "hit" else {})
        cells.append(f"{100 * (row[OURS] / whole[OURS] - 1):+.1f} %" if whole else "")
        covered = coverage.get((scenario, part), {}).get(OURS)
        lines.append(_row([scenario, part, *cells, "" if covered is None else f"{100 * covered:.1f} %"]))
    if (UNSEEN, "hit") in rows:
        lines += ["", *_unseen([record for record in mae if record["scenario"] == UNSEEN])]
    measured = "; ".join(dict.fromkeys(record["note"] for record in records))
    return [*lines, "", f"Measured: {measured}.", *uncommitted(records)]


def _unseen(records: Sequence[Record]) -> list[str]:
    """Sensors never seen, a line for each subject and a column for each draw; then the other sensors, where more than
    one network of ours was trained."""
    seeds = sorted({record["seed"] for record in records})
    values: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for record in records:
        values[record["part"]][record["subject"]][record["seed"]] = record["value"]
    networks = [name for name in values["hit"] if name.startswith(OURS)]
    lines = [
        f"A tenth of the sensors held out of training, {len(seeds)} draw(s) of them. Of those, their place and links "
        "are known:",
        "",
        _row(["forecast of them", *(f"draw {seed}" for seed in seeds), "mean", *(f"{n} against it" for n in networks)]),
        _row(["---", *["---:"] * (len(seeds) + 1 + len(networks))]),
    ]
    for name, row in values["hit"].items():
        against = ["" if name in networks else _against(values["hit"][n], row) for n in networks]
        mean = float(np.mean(list(row.values())))
        cells = [*(f"{row[seed]:.3f}" if seed in row else "" for seed in seeds), f"{mean:.3f}", *against]
        lines.append(_row([f"**{name}**" if name == OURS else name, *cells]))
    others = values["others"]
    if len(others) > 1:
        told = (f"{name} {_against(row, others[OURS])}" for name, row in others.items() if name != OURS)
        lines += ["", f"At the sensors that were trained on, against {OURS}: {'; '.join(told)}."]
    return lines


def _against(row: Mapping[int, float], other: Mapping[int, float]) -> str:
    """How much one errs more than the other over the draws that both have, in %."""
    both = sorted(row.keys() & other.keys())
    if not both:
        return ""
    ours, theirs = (float(np.mean([errors[seed] for seed in both])) for errors in (row, other))
    return f"{100 * (ours / theirs - 1):+.1f} %"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
