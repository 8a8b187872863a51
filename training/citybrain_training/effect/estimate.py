"""How large an effect is, how sure we are, and whether it also shows where and when there was no measure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import date

import numpy as np
import pandas as pd
from scipy.stats import t as student

from citybrain_datasets import geo
from citybrain_datasets.city import City
from citybrain_datasets.errors import CityError, Problem
from citybrain_training.effect.counterfactual import BLOCK_DAYS, Counterfactual, counterfactual
from citybrain_training.effect.study import Study

LEVEL = 0.9


@dataclass(frozen=True)
class Effect:
    """A change in the unit of the signal, mean over the hours after the date; ``relative`` is a share of the expected.

    ``low`` and ``high`` bound 90 %, by the model's error in blocks of 28 days that it had not seen.
    """

    measured: float
    expected: float
    change: float
    low: float
    high: float
    relative: float
    relative_low: float
    relative_high: float
    hours: int


def estimate(found: Counterfactual) -> Effect:
    """The effect over all hours after the date. Without folds the bounds are NaN."""
    measured, expected = float(found.measured.mean()), float(found.expected.mean())
    change, off = measured - expected, reach(found)
    return Effect(
        measured, expected, change, change - off, change + off, change / expected, (change - off) / expected,
        (change + off) / expected, len(found.measured),
    )  # fmt: skip


def reach(found: Counterfactual, days: float | None = None) -> float:
    """Half the width of the 90 % interval of a mean over so many days, by default as many as after the date.

    The mean errors of the n 28-day blocks that the model had not seen are taken for a sample of what it does in any
    block: t(n − 1) · s · √(1/m + 1/n) for the mean of m further ones (a prediction interval), and the bias of the n on
    top, since nobody knows its sign after the date. NaN without folds.
    """
    if found.residual.empty:
        return float("nan")
    age = (found.residual.index[-1] - found.residual.index) // pd.Timedelta(days=BLOCK_DAYS)
    means = found.residual.groupby(np.asarray(age)).mean().to_numpy()
    if len(means) < 3:
        return float("nan")
    span = days if days is not None else (found.measured.index[-1] - found.measured.index[0]) / pd.Timedelta(days=1)
    blocks = max(span / BLOCK_DAYS, 1.0)
    spread = means.std(ddof=1) * np.sqrt(1 / blocks + 1 / len(means))
    return float(student.ppf((1 + LEVEL) / 2, len(means) - 1) * spread + abs(means.mean()))


def by_month(found: Counterfactual, timezone: str) -> list[dict[str, object]]:
    """The effect in each month after the date, bounded by the error over one block."""
    months = pd.DatetimeIndex(found.measured.index).tz_convert(timezone).strftime("%Y-%m")
    off = reach(found, BLOCK_DAYS)
    rows: list[dict[str, object]] = []
    for month, hours in found.measured.groupby(np.asarray(months)):
        expected = float(found.expected[hours.index].mean())
        change = float(hours.mean()) - expected
        rows.append({"month": str(month), "measured": float(hours.mean()), "expected": expected, "change": change,
                     "low": change - off, "high": change + off, "hours": len(hours)})  # fmt: skip
    return rows


def skill(found: Counterfactual) -> dict[str, float]:
    """How good the model is where nothing happened: R², mean absolute error and bias on blocks it had not seen, and the
    share of days whose mean lies within the band that 90 % of the *other* blocks' days keep to."""
    truth, residual = found.before[found.residual.index], found.residual
    daily = residual.resample("1D").mean().dropna()
    block = np.asarray((daily.index[-1] - daily.index) // pd.Timedelta(days=BLOCK_DAYS))
    inside = [np.abs(daily[block == b]) <= np.quantile(np.abs(daily[block != b]), LEVEL) for b in np.unique(block)]
    return {
        "r2": float(1 - (residual**2).mean() / truth.var(ddof=0)),
        "mae": float(residual.abs().mean()),
        "bias": float(residual.mean()),
        "daily_coverage_90": float(np.concatenate(inside).mean()),
    }


def run_study(city: City, study: Study, progress: Callable[[str], None] = lambda what: None) -> dict[str, object]:
    """The whole study as one JSON-able record: effects with intervals and months, placebo places and placebo dates.

    Of the placebo places, ``rank`` is the share, the site itself counted in, that fell at least as far: a small one
    says that the site fell farther than places do without a measure.
    """
    start = pd.Timestamp(study.date, tz=city.timezone).tz_convert("UTC")
    effects, places, dates = [], [], []
    for target in study.targets:
        far = _distances(city, target.signal, study.site)
        for node in target.nodes:
            progress(f"{target.signal} at {node}")
            found = counterfactual(city, target.signal, node, start)
            effects.append({"signal": target.signal, "node": node, "distance_m": round(far.get(node, float("nan"))),
                            **asdict(estimate(found)), "model": skill(found),
                            "months": by_month(found, city.timezone)})  # fmt: skip
            if node == target.nodes[0]:
                dates += [_pretend(city, study, target.signal, node, day, found) for day in study.placebo_dates]
        for node in [n for n, metres in far.items() if metres > study.reach_m and n not in target.nodes]:
            progress(f"{target.signal} at {node}, a placebo place")
            try:
                effect = estimate(counterfactual(city, target.signal, node, start, folds=False))
            except CityError:
                continue  # a place that was not measured long enough is no placebo
            places.append({"signal": target.signal, "node": node, "distance_m": round(far[node]),
                           "change": effect.change, "relative": effect.relative})  # fmt: skip
    return {
        "study": study.model_dump(mode="json"),
        "city": {"name": city.name, "fingerprint": city.fingerprint()},
        "effects": effects,
        "placebo_places": places,
        "placebo_dates": dates,
        "ranks": _ranks(effects, places),
    }


def _pretend(city: City, study: Study, signal: str, node: str, day: date, found: Counterfactual) -> dict[str, object]:
    """The effect of nothing, as if it had begun on ``day``."""
    begin = pd.Timestamp(day, tz=city.timezone).tz_convert("UTC")
    end = begin + pd.Timedelta(days=study.placebo_days)
    effect = estimate(counterfactual(city, signal, node, begin, end, folds=False))
    return {"signal": signal, "node": node, "date": str(day), "change": effect.change, "relative": effect.relative,
            "within": bool(abs(effect.change) <= reach(found, study.placebo_days))}  # fmt: skip


def _ranks(effects: list[dict[str, object]], places: list[dict[str, object]]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for effect in effects:
        others = [float(str(p["relative"])) for p in places if p["signal"] == effect["signal"]]
        if others:
            own = float(str(effect["relative"]))
            share = (1 + sum(o <= own for o in others)) / (1 + len(others))
            rows.append({"signal": effect["signal"], "node": effect["node"], "rank": share, "places": len(others),
                         "beyond_median": own - float(np.median(others))})  # fmt: skip
    return rows


def _distances(city: City, signal: str, site: str) -> dict[str, float]:
    """Metres from the site to each node that measures ``signal``."""
    kind = city.signals[signal].node if signal in city.signals else "air"
    nodes = city.nodes.get(kind)
    placed = [table for table in city.nodes.values() if site in table.index]
    if nodes is None or not placed:
        raise CityError([Problem(f"city {city.name}", f"has no {signal}, or no node {site}")])
    lat, lon = (placed[0][c].to_numpy(float)[placed[0].index == site][0] for c in ("lat", "lon"))
    metres = geo.great_circle_m(lat, lon, nodes["lat"].to_numpy(float), nodes["lon"].to_numpy(float))
    return dict(zip(map(str, nodes.index), map(float, metres), strict=True))
