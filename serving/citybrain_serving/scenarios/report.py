"""A page on one scoring run: self-contained, without a single address outside it."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from citybrain_datasets.records import write_atomically
from citybrain_datasets.scenarios.language import Scenario
from citybrain_datasets.scenarios.outcomes import OUTCOMES
from citybrain_datasets.scenarios.places import clock
from citybrain_datasets.scenarios.resolve import districts
from citybrain_datasets.scenarios.telling import in_words, signed
from citybrain_models.surrogate.scorer import Scorer
from citybrain_serving.scenarios.drawing import bars, courses, map_of_change, scatter
from citybrain_serving.scenarios.engine import Work, scorer_of
from citybrain_serving.scenarios.ranking import unpriced
from citybrain_serving.scenarios.rows import USUAL

SHOWN = 20
"""Rows of the table."""
_PLOTTED = 3000
_ANYWHERE = "the whole city"
"""Where no districts are known."""

_STYLE = """
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; display: block; overflow-x: auto }
td, th { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #8884; white-space: nowrap }
td:nth-child(2), th:nth-child(2) { text-align: left }
caption { text-align: left }
svg { max-width: 100%; height: auto }
small { opacity: .8 }
.outside { color: light-dark(#a34400, #ff9d5c); opacity: 1 }
"""


def write_report(
    work: Work, ranked: pa.Table, weights: Mapping[str, float], target: Path, checked: pa.Table | None = None
) -> None:
    """Writes the HTML page of a ranking: table, Pareto plot, map of the best scenario's change, before and after by
    quarter of an hour, who gains and who loses; and, where ``checked``, the simulator's word beside the surrogate's."""
    scorer = scorer_of(work.surrogate, work.city)
    bundle = scorer.bundle
    best = work.scenarios[ranked["position"][0].as_py()]
    body = "\n".join(_body(work, scorer, ranked, weights, best, checked))
    title = html.escape(f"Scenarios for {bundle.city.title or bundle.city.name}")
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>\n'
        f"<body><h1>{title}</h1>\n{body}\n</body></html>\n"
    )
    write_atomically(target, page)


def _body(
    work: Work,
    scorer: Scorer,
    ranked: pa.Table,
    weights: Mapping[str, float],
    best: Scenario,
    checked: pa.Table | None,
) -> Iterator[str]:
    bundle = scorer.bundle
    weighed = ", ".join(f"{name} × {weight:g}" for name, weight in weights.items() if weight)
    outside = sum(bool(why) for why in ranked["outside"].to_pylist())
    if bundle.city.synthetic:
        yield "<p><strong>The city is synthetic. Nothing here says anything about a real one.</strong></p>"
    yield (
        f"<p>{ranked.num_rows:,} scenarios, ranked by {html.escape(weighed)}; surrogate {bundle.version}. "
        f"{outside:,} are marked: they go beyond what the surrogate has learnt or the hours that it judges, or hold a "
        "measure that changes nothing where it is taken. Judged are "
        f"{scorer.timetable}; changes are against the same hours without measures, brackets hold 90 %.</p>"
    )
    yield from _cautions(ranked)
    if last := unpriced(ranked, weights):
        yield f"<p>{last:,} scenarios have no cost, which is weighed: they are ranked last, off the Pareto front.</p>"
    named = [name for name, weight in weights.items() if weight and name in OUTCOMES]
    shown = list(dict.fromkeys([*named, "delay_veh_h", "emission_kg", "pm25_people"]))
    yield "<h2>Ranking</h2>" + _table(work, ranked, shown)
    yield "<h2>What can be had together</h2>" + _pareto(ranked, [*named, "delay_veh_h", "pm25_people"][:2], shown)
    yield from _best(scorer, best)
    if checked is not None:
        yield "<h2>Simulated</h2>" + _checked(checked)


def _cautions(ranked: pa.Table) -> Iterator[str]:
    """What the order of the table does not tell."""
    if (rivals := sum(ranked["maybe_best"].to_pylist()) - 1) > 0:
        yield (
            f"<p>{rivals:,} scenarios cannot be told from the best by these figures: the bounds of their scores reach "
            "its own. They are marked “may be the best”; simulating them (<code>--verify</code>) tells more.</p>"
        )
    if len(set(ranked["weather"].to_pylist())) > 1:
        yield (
            "<p>Not all are judged in the same weather: each is held against the base in its own, which stands beside "
            "its levers, and what they change in the air can hardly be compared.</p>"
        )
    if "literature" in ranked["grade"].to_pylist():
        yield (
            "<p>Changes graded “literature” are those of assumed or published factors, and have no interval: how far "
            "these are off is not known.</p>"
        )


def _table(work: Work, ranked: pa.Table, shown: list[str]) -> str:
    head = "".join(_head(f"{html.escape(OUTCOMES[n].title)}<br><small>{n}, {OUTCOMES[n].unit}</small>") for n in shown)
    lines = []
    for row in ranked.slice(0, SHOWN).to_pylist():
        cells = "".join(f"<td>{_change(row, n)}</td>" for n in shown)
        mark = f' <small class="outside">{html.escape(row["outside"])}</small>' if row["outside"] else ""
        name = html.escape(row["title"] or row["id"])
        told = [
            html.escape(in_words(work.scenarios[row["position"]])),
            row["grade"],
            *([] if row["weather"] == USUAL else [f"weather of {html.escape(row['weather'])}"]),
        ]
        if row["maybe_best"] and row["rank"] > 1:
            told.append("may be the best")
        lines.append(
            f"<tr><td>{row['rank']}</td><td>{name}<br><small>{'; '.join(told)}</small>{mark}</td>{cells}"
            f"<td>{'yes' if row['pareto'] else ''}</td></tr>"
        )
    head = f"{_head('rank')}{_head('scenario')}{head}{_head('Pareto')}"
    return f"<table><caption>Changes, the best first</caption><tr>{head}</tr>{''.join(lines)}</table>"


def _head(cell: str) -> str:
    return f'<th scope="col">{cell}</th>'


def _change(row: Mapping[str, Any], name: str) -> str:
    """A change and its interval; without one where it rests on nothing but a factor."""
    change, low, high = (row[f"{name}_change{end}"] for end in ("", "_low", "_high"))
    if low == high:
        return signed(change)
    return f"{signed(change)} <small>[{signed(low)}, {signed(high)}]</small>"


def _pareto(ranked: pa.Table, axes: list[str], shown: list[str]) -> str:
    x, y = axes if axes[0] != axes[1] else (axes[0], next(n for n in shown if n != axes[0]))
    front = np.asarray(ranked["pareto"])
    # The front whole, of the others as many as an eye can tell apart.
    rest = np.flatnonzero(~front)
    kept = np.sort(np.r_[np.flatnonzero(front), rest[:: max(1, len(rest) // _PLOTTED)]])
    a, b = (ranked[f"{n}_change"].to_numpy()[kept] for n in (x, y))
    below, beside = (f"change of {OUTCOMES[n].title}, {OUTCOMES[n].unit}" for n in (x, y))
    names = [f"{row['rank']}. {row['title'] or row['id']}" for row in ranked.take(pa.array(kept)).to_pylist()]
    return scatter(a, b, front[kept], names, below, beside)


def _best(scorer: Scorer, best: Scenario) -> Iterator[str]:
    bundle, usual = scorer.bundle, scorer.after.unchanged
    said = scorer.levers([best], scorer.base.flow)
    after = scorer.changed(said)
    roads = bundle.city.nodes["road"]
    slot = bundle.usual.slot_seconds
    time = (after.vehicles[0] - usual.vehicles[0]).sum(axis=1) * slot / 3600
    emitted = scorer.traffic(usual), scorer.traffic(after, said.exhaust)
    yield f"<h2>Best: {html.escape(best.title or best.id)}</h2><p>{html.escape(in_words(best))}</p>"
    yield "<h3>Time spent on each street, change in vehicle-hours</h3>"
    yield "<p><small>Green: less; red: more. The larger the dot, the larger the change.</small></p>"
    edges = bundle.city.edges["road-road"]
    yield map_of_change(roads["lat"].to_numpy(float), roads["lon"].to_numpy(float), time, _links(roads, edges))
    yield "<h3>Before and after</h3>"
    times = [clock(bundle.window.begin + i * slot // 60) for i in range(bundle.usual.slots)]
    yield courses(times, usual.vehicles[0].sum(axis=0), after.vehicles[0].sum(axis=0), "vehicles on the road")
    course, changed = (traffic.emission[0].sum(axis=-1) for traffic in emitted)
    yield courses(times, course, changed, "PM2.5 that traffic emits, g/h")
    yield "<h3>Who gains and who loses</h3><p>Time spent, vehicle-hours by the district of the street</p>"
    where = districts(roads)
    yield bars({name or _ANYWHERE: float(time[where == name].sum()) for name in sorted(set(where))})
    yield "<p>PM2.5 that people breathe, µg/m³ by the district where they live</p>"
    nothing = {name: np.ones_like(factors) for name, factors in said.sectors.items()}
    before, then = (scorer.people(best.weather, t, f) for t, f in zip(emitted, (nothing, said.sectors), strict=True))
    yield bars({name or _ANYWHERE: float(then[name][0] - before[name][0]) for name in before}, digits=2)


def _links(roads, edges) -> list[tuple[int, int]]:  # type: ignore[no-untyped-def]  # two tables of a City
    index = roads.index
    return list(zip(index.get_indexer(edges["source"]), index.get_indexer(edges["target"]), strict=True))


_CHECKED = {
    "rank": "rank",
    "id": "scenario",
    "outcome": "outcome",
    "unit": "unit",
    "ranked": "surrogate, usual day",
    "surrogate": "surrogate, these mornings",
    "simulated": "SUMO, these mornings",
    "simulated_half_range": "± half the range of the mornings",
    "off_by": "surrogate less SUMO",
    "held": "interval held",
}


def _checked(checked: pa.Table) -> str:
    head = "".join(map(_head, _CHECKED.values()))
    lines = []
    for row in checked.to_pylist():
        cells = [_cell(name, row[name]) for name in _CHECKED]
        lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return f"<table><caption>Changes of the best, as simulated</caption><tr>{head}</tr>{''.join(lines)}</table>"


def _cell(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return signed(value).lstrip("+") if name == "simulated_half_range" else signed(value)
    return html.escape(str(value))
