"""``docs/benchmarks.md`` from the flat records; nothing in it is typed."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from citybrain_datasets.records import Record, uncommitted, write_chapter
from citybrain_models.events import alarmed
from citybrain_training.bench.cases import CASES
from citybrain_training.bench.groups import PARTS_OF_DAY
from citybrain_training.bench.learning import YARDSTICK
from citybrain_training.bench.parts import markdown as what_parts_bring
from citybrain_training.peers.registry import FORESEEING, OURS, SUBJECTS

COLUMNS = ("RMSE", "MAPE %", "pinball", "coverage", "width", "training min", "epochs", "parameters", "seeds", "note")

PINBALL = "pinball loss"

Values = dict[tuple[str, str], list[float]]
"""Values over the seeds by metric and horizon."""


def write_table(
    path: Path, name: str, records: Sequence[Record], plots: Sequence[Path] = (), newer: Sequence[Record] = ()
) -> None:
    """Writes the chapter of the page that tells the file of records ``name``; the rest of the page stays. Cases that
    ``newer`` records measured later are said to be superseded."""
    links = {plot.stem: Path(os.path.relpath(plot, path.parent)).as_posix() for plot in plots}
    write_chapter(path, name, f"citybrain bench --name {name}", markdown(name, records, links, newer))


def markdown(
    name: str, records: Sequence[Record], plots: Mapping[str, str] | None = None, newer: Sequence[Record] = ()
) -> str:
    """The chapter: a table a case, ours against the best peer, events, and ``plots``, links by name; what ``newer``
    records measured again is marked."""
    by_case: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_case[record["case"]].append(record)
    parts = [
        f"## Accuracy: `{name}.json`",
        "",
        "Every model saw the same windows, masks, scalers and splits, and was scored once on the test windows, over "
        "all measured values pooled. Mean over seeds, ± their standard deviation. Intervals run from the 5 % to "
        "the 95 % quantile; point forecasts got theirs by split conformal prediction from validation errors. "
        "Pinball loss is the mean over all quantiles. Twice that is less than the CRPS, by a fifth for a normal "
        "distribution, since the tails count for more of it than they are; models compare by it all the same.",
    ]
    ratios: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for case in [*(c for c in CASES if c in by_case), *sorted(set(by_case) - set(CASES))]:
        lines, ratio = _case(
            case, by_case[case], {name: link for name, link in (plots or {}).items() if name.startswith(f"{case}-")}
        )
        parts += ["", lines[0], *_superseded(by_case[case], newer), *lines[1:], *uncommitted(by_case[case])]
        if ratio is not None and case in CASES and CASES[case].city != "embedded":
            ratios[CASES[case].task].append(ratio)
    for task, found in ratios.items():
        over = f"Mean over the {task} sets ({len(found)})"
        mae, pinball = np.mean(found, axis=0)
        parts += ["", f"{over}: our mean MAE is {mae:.3f} of the best peer's, our pinball loss {pinball:.3f}."]
    return "\n".join([*parts, *what_parts_bring(records)])


def _superseded(records: Sequence[Record], newer: Sequence[Record]) -> list[str]:
    """Says that our network was measured on the same case again, where it was and later."""
    ours = [r["date"] for r in records if r["subject"] == OURS]
    again = [r["date"] for r in newer if r["subject"] == OURS and r["case"] == records[0]["case"]]
    if not (ours and again and max(ours) < min(again)):
        return []
    then, since = max(ours)[:16], min(again)[:16]
    told = f"measured again in the chapter of `accuracy.json` (from {since} UTC on; here until {then})"
    return ["", f"**Superseded**: {told}, with later code, baselines and budgets. This is what was found then."]


def _case(
    case: str, records: Sequence[Record], plots: Mapping[str, str]
) -> tuple[list[str], tuple[float, float] | None]:
    runs = [r for r in records if r["seed"] is not None]
    values: dict[str, Values] = defaultdict(lambda: defaultdict(list))
    for record in runs:
        values[record["subject"]][record["metric"], record["horizon"]].append(record["value"])
    leads = list(dict.fromkeys(r["horizon"] for r in runs if r["metric"] == "mae"))
    unit = next(r["unit"] for r in runs if r["metric"] == "mae")
    order = sorted(values, key=lambda name: float(np.mean(values[name]["mae", "mean"])))
    foreseen = [name for name in order if name in SUBJECTS and SUBJECTS[name].foresight]
    blind = [name for name in order if name not in foreseen]
    notes: dict[str, int] = {}
    head = ["model", *(f"MAE {lead}" for lead in leads), *COLUMNS]

    def row(name: str) -> str:
        note = next(r["note"] for r in runs if r["subject"] == name)
        return _row([*_scores(name, values[name], leads), str(notes.setdefault(note, len(notes) + 1))])

    lines = [f"### {case}, {unit}", "", *_head(head, 1), *map(row, blind)]
    for published in CASES[case].published if case in CASES else ():
        cells = [f"*{published.model}*", *(f"{published.mae[h]:.2f}" if h in published.mae else "" for h in leads)]
        number = notes.setdefault(published.note, len(notes) + 1)
        lines.append(_row([*cells, *[""] * (len(head) - len(cells) - 1), str(number)]))
    if foreseen:
        lines += ["", "With the observed weather of the target time, a stand-in for a perfect weather forecast:", ""]
        lines += [*_head(head, 1), *map(row, foreseen)]
        lines += _against_best(records, values, FORESEEING)[0]
    lines += ["", "Notes: " + "; ".join(f"({number}) {note}" for note, number in notes.items()) + "."]
    difference, ratio = _against_best(records, values, OURS)
    lines += [*difference, *_learning(values), *_groups(values), *_by_lead(values, leads)]
    lines += [*_apart(values, order), *_events(values, order)]
    for name, link in plots.items():
        lines += ["", f"![{name}]({link})"]
    return lines, ratio


def _scores(name: str, own: Values, leads: Sequence[str]) -> list[str]:
    """The cells of a model's row, all but its note."""
    title = SUBJECTS[name].title if name in SUBJECTS else name
    cells = [f"**{title}**" if name == OURS else title]
    cells += [_number(own["mae", lead], spread=lead == "mean") for lead in leads]
    cells += [_number(own[metric, "mean"]) for metric in ("rmse", "mape", "pinball")]
    cells += [f"{100 * np.mean(own['coverage', 'mean']):.1f} %", _number(own["width", "mean"])]
    cells += [f"{np.mean(own['training_seconds', 'mean']) / 60:.1f}", f"{np.mean(own['epochs', 'mean']):.1f}"]
    return [*cells, f"{np.mean(own['parameters', 'mean']):,.0f}", str(len(own["mae", "mean"]))]


def _against_best(
    records: Sequence[Record], values: dict[str, Values], subject: str
) -> tuple[list[str], tuple[float, float] | None]:
    """What is told of ours against the best peer, and our mean error and pinball loss over the least of a peer."""
    found = {r["metric"]: r for r in records if r["metric"].startswith("mae_difference") and r["subject"] == subject}
    if not found or subject not in values:
        return [], None
    main = found["mae_difference"]
    peer = main["note"].removeprefix("minus ").partition(";")[0]
    ours, theirs = (float(np.mean(values[name]["mae", "mean"])) for name in (subject, peer))
    low, high = found["mae_difference_low"]["value"], found["mae_difference_high"]["value"]
    line = (
        f"Ours is {ours / theirs:.3f} of the best peer's mean MAE ({SUBJECTS[peer].title}): {main['value']:+.3f} "
        f"{main['unit']}, 95 % interval {low:+.3f} to {high:+.3f}."
    )
    each = _ratios(values, subject)
    told = ", ".join(f"{label} {ratio:.3f}" for label, ratio in each.items())
    return ["", line, "", f"Ours over the best peer at each: {told}."], (ours / theirs, each[PINBALL])


def _ratios(values: dict[str, Values], subject: str) -> dict[str, float]:
    """Ours over the best peer's, each lead and the pinball loss against whoever is best at it."""
    foresight = SUBJECTS[subject].foresight
    known = [name for name in values if name in SUBJECTS and not SUBJECTS[name].ours]
    peers = [name for name in known if SUBJECTS[name].foresight == foresight]
    leads = [horizon for metric, horizon in values[subject] if metric == "mae" and horizon != "mean"]
    return {
        label: float(np.mean(values[subject][key])) / min(float(np.mean(values[name][key])) for name in peers)
        for label, key in [*((lead, ("mae", lead)) for lead in leads), (PINBALL, ("pinball", "mean"))]
    }


def _learning(values: dict[str, Values]) -> list[str]:
    """How soon each of ours had the validation error that Graph WaveNet ended with."""
    parts = []
    for name, own in values.items():
        reached = own.get((f"reached_{YARDSTICK}", "mean"))
        if not reached:
            continue
        shares = own.get((f"seconds_over_{YARDSTICK}", "mean"))
        title = SUBJECTS[name].title if name in SUBJECTS else name
        often = "" if np.mean(reached) == 1 else f", in {sum(reached):.0f} of {len(reached)} runs"
        parts.append(f"{title} {np.mean(shares):.3f}{often}" if shares else f"{title} never")
    if not parts:
        return []
    theirs = f"the training time in which {SUBJECTS[YARDSTICK].title} came to its least validation error"
    return ["", f"Share of {theirs} after which ours had as little: {', '.join(parts)}."]


def _groups(values: dict[str, Values]) -> list[str]:
    own = values.get(OURS)
    if not own:
        return []
    lines = []
    for name, said in (
        ("", "As calibrated on the validation windows"),
        ("online_", "Learning from outcomes as the service does"),
    ):
        if (f"{name}coverage_lowest_group", "mean") not in own:
            continue
        keys = ("coverage", "coverage_lowest_group", "coverage_highest_group")
        whole, low, high = (f"{100 * np.mean(own[f'{name}{key}', 'mean']):.1f} %" for key in keys)
        width, pinball = (_number(own[f"{name}{key}", "mean"]) for key in ("width", "pinball"))
        lines.append(
            f"- {said}: coverage {whole}, by horizon and part of the day between {low} and {high}, "
            f"width {width}, pinball loss {pinball}."
        )
    return ["", "Our intervals:", "", *lines]


def _by_lead(values: dict[str, Values], leads: Sequence[str]) -> list[str]:
    """Our intervals by horizon, over the day and in its parts, and what the runs did not keep."""
    own = values.get(OURS, {})
    parts = [f"coverage: part of the day: {part}" for part in PARTS_OF_DAY]
    if not any((part, lead) in own for part in parts for lead in leads):
        return []
    head = ["lead", "intervals", "pinball", "width", "coverage", *PARTS_OF_DAY]
    told = "Our intervals by lead, and their coverage by lead and part of the local day in which the step ends:"
    lines = ["", told, "", *_head(head, 2)]
    for lead in (lead for lead in leads if lead != "mean"):
        for name, said in (("", "as calibrated"), ("online_", "learning")):
            cells = [_number(own[key]) if (key := (f"{name}{m}", lead)) in own else "" for m in ("pinball", "width")]
            cells += [_percent(own.get((f"{name}{metric}", lead))) for metric in ("coverage", *parts)]
            lines.append(_row([lead, said, *cells]))
    missing = []
    if ("online_coverage", leads[0]) not in own:
        missing.append("pinball loss, width and coverage of a whole lead while learning")
    if not any(metric.startswith("coverage: hour: ") for metric, _ in own):
        missing.append("scores by hour of the day")
    if missing:
        lines += ["", f"Not kept by these runs, which were finished before: {'; '.join(missing)}."]
    return lines


def _percent(shares: Sequence[float] | None) -> str:
    return f"{100 * np.mean(shares):.1f} %" if shares else ""


def _apart(values: dict[str, Values], order: Sequence[str]) -> list[str]:
    """Ours by part of the day, group of nodes and regime, beside the peer with the least mean error."""
    own = values.get(OURS, {})
    groups = [m.removeprefix("coverage: ") for m, horizon in own if m.startswith("coverage: ") and horizon == "mean"]
    if not groups:
        return []
    peers = [name for name in order if name in SUBJECTS and not (SUBJECTS[name].ours or SUBJECTS[name].foresight)]
    title = SUBJECTS[peers[0]].title if peers else "no peer"
    lines = ["", *_head(["apart by", "group", "MAE", "pinball", "coverage", "width", f"MAE of {title}"], 2)]
    for group in groups:
        kind, _, name = group.partition(": ")
        mae, pinball, width = (_number(own[f"{m}: {group}", "mean"]) for m in ("mae", "pinball", "width"))
        covered = f"{100 * np.mean(own[f'coverage: {group}', 'mean']):.1f} %"
        theirs = values[peers[0]].get((f"mae: {group}", "mean")) if peers else None
        lines.append(_row([kind, name, mae, pinball, covered, width, _number(theirs) if theirs else ""]))
    nodes = [group for group in groups if group.startswith("nodes: ")]
    if nodes:
        worst = max(nodes, key=lambda group: float(np.mean(own[f"mae: {group}", "mean"])))
        lines += ["", f"Our worst group of nodes: {worst.removeprefix('nodes: ')}."]
    return lines


def _events(values: dict[str, Values], order: Sequence[str]) -> list[str]:
    metrics = [metric for name in order for metric, _ in values[name] if metric.startswith("csi: ")]
    events = list(dict.fromkeys(metric.removeprefix("csi: ") for metric in metrics))
    if not events:
        return []
    lines = ["", *_head(["event", "model", "POD", "FAR", "CSI", "Brier", "Brier skill", "happened"], 2)]
    for event in events:
        scored = [name for name in order if (f"csi: {event}", "mean") in values[name]]
        for name in scored:
            pod, far, csi = (values[name][f"{m}: {event}", "mean"] for m in ("pod", "far", "csi"))
            false = [share for hit, share in zip(pod, far, strict=True) if alarmed(hit, share)]
            cells = [f"{np.mean(share):.3f}" if share else "no alarm" for share in (pod, false, csi)]
            cells += [f"{np.mean(values[name][f'brier: {event}', 'mean']):.4f}"]
            cells += [f"{np.mean(values[name][f'brier_skill: {event}', 'mean']):.3f}"]
            cells += [f"{100 * np.mean(values[name][f'base_rate: {event}', 'mean']):.2f} %"]
            lines.append(_row([event, SUBJECTS[name].title if name in SUBJECTS else name, *cells]))
    return lines


def _number(values: Sequence[float], *, spread: bool = False) -> str:
    mean = float(np.mean(values))
    digits = 3 if abs(mean) < 10 else 2
    more = f" ± {np.std(values, ddof=1):.{digits}f}" if spread and len(values) > 1 else ""
    return f"{mean:.{digits}f}{more}"


def _head(cells: Sequence[str], words: int) -> list[str]:
    """The head of a table whose first ``words`` columns hold words and the others numbers."""
    return [_row(cells), _row([*["---"] * words, *["---:"] * (len(cells) - words)])]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
