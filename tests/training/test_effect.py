"""The effect of a measure: found where it is, not found where it is not, in a city whose truth is known."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("sklearn", reason="the counterfactual needs the extra 'training'")

from citybrain_datasets.city import NODE_COLUMNS, City
from citybrain_datasets.errors import CityError
from citybrain_datasets.main import main
from citybrain_datasets.signals import Signal
from citybrain_training.effect.counterfactual import Counterfactual, counterfactual, inputs
from citybrain_training.effect.estimate import by_month, estimate, run_study, skill
from citybrain_training.effect.study import Study, read_study
from citybrain_training.effect.table import markdown

START = pd.Timestamp("2018-01-01 01:00", tz="UTC")
DATE = pd.Timestamp("2018-06-01", tz="UTC")
HOURS = 213 * 24
CUT = 0.7
STUDY: dict[str, Any] = {
    "name": "Zone", "date": "2018-06-01", "site": "in", "reach_m": 1000,
    "targets": [{"signal": "no2", "nodes": ["in", "near"]}],
    "placebo_dates": ["2018-04-01"],
    "published": [{"who": "A", "where": "here", "found": "−30 %", "comparable": "made up", "source": "https://a.example"}],
}  # fmt: skip


@pytest.fixture(scope="module")
def city() -> City:
    """Pollution falls with the wind and follows the clock; in the zone it falls by 30 % from June on."""
    rng = np.random.default_rng(0)
    hour = np.arange(HOURS)
    wind = 3 + np.sin(hour / 60) + rng.normal(0, 0.5, HOURS)
    level = 60 / np.clip(wind, 0.8, None) * (1 + 0.4 * np.sin(2 * np.pi * hour / 24))
    ids = ["in", "near", "far1", "far2", "far3", "new"]
    values = level[:, None] * np.exp(rng.normal(0, 0.15, (HOURS, len(ids))))
    times = pd.date_range(START, periods=HOURS, freq="1h")
    values[times > DATE, 0] *= CUT
    values[times < DATE - pd.Timedelta(days=20), 5] = np.nan
    nodes = pd.DataFrame({c: "" for c in NODE_COLUMNS}, index=pd.Index(ids, name="id"))
    nodes["lat"], nodes["lon"] = [40.0, 40.005, 40.1, 40.2, 40.3, 40.4], -3.7
    step = pd.Timedelta(hours=1)
    signals = {
        "no2": Signal("no2", "air", START, step, values),
        "wind_speed": Signal("wind_speed", "city", START, step, wind[:, None]),
        "temperature": Signal("temperature", "city", START, step, np.full((HOURS, 1), 15.0)),
    }
    return City("made", "UTC", {"air": nodes}, signals=signals, synthetic=True)


@pytest.fixture(scope="module")
def inside(city: City) -> Counterfactual:
    return counterfactual(city, "no2", "in", DATE)


def test_an_effect_is_found_and_bounded(inside: Counterfactual) -> None:
    effect = estimate(inside)
    assert effect.relative == pytest.approx(CUT - 1, abs=0.03)
    assert effect.relative_low < CUT - 1 < effect.relative_high < 0
    assert effect.change == pytest.approx(effect.measured - effect.expected)
    assert skill(inside)["r2"] > 0.7
    assert 0.8 < skill(inside)["daily_coverage_90"] <= 1
    months = by_month(inside, "UTC")
    assert [m["month"] for m in months] == ["2018-06", "2018-07", "2018-08"]
    assert sum(int(str(m["hours"])) for m in months) == effect.hours


def test_no_effect_is_found_where_there_is_none(city: City) -> None:
    effect = estimate(counterfactual(city, "no2", "near", DATE))
    assert abs(effect.relative) < 0.03
    assert abs(effect.relative_low) < 0.06
    assert abs(effect.relative_high) < 0.06


def test_what_is_learned_ends_with_the_date(city: City, inside: Counterfactual) -> None:
    signal = city.signals["no2"]
    later = signal.values.copy()
    later[signal.times > DATE] *= 100
    again = counterfactual(
        city.replace(signals={**city.signals, "no2": Signal("no2", "air", START, signal.step, later)}),
        "no2",
        "in",
        DATE,
    )
    pd.testing.assert_series_equal(again.expected, inside.expected)
    assert inside.residual.index.max() <= DATE < inside.expected.index.min()
    assert "no2" not in " ".join(inputs(city, "in", "air").columns)


def test_winds_from_either_side_of_north_are_north_together(city: City) -> None:
    half = pd.Timedelta(minutes=30)
    wind = {
        "wind_speed": Signal("wind_speed", "city", START, half, np.full((48, 1), 4.0)),
        "wind_direction": Signal("wind_direction", "city", START, half, np.resize([350.0, 10.0], (48, 1))),
    }
    table = inputs(city.replace(signals=city.signals | wind), "in", "air").loc[START + 2 * half :].head(20)
    assert table["wind_north"].to_numpy() == pytest.approx(4 * np.cos(np.deg2rad(10)))
    assert table["wind_east"].to_numpy() == pytest.approx(0, abs=1e-6)
    assert "wind_direction" not in table


def test_a_study_has_its_placebos(city: City) -> None:
    record = run_study(city, Study.model_validate(STUDY))
    assert {p["node"] for p in record["placebo_places"]} == {"far1", "far2", "far3"}  # type: ignore[attr-defined]
    ranks = {r["node"]: r for r in record["ranks"]}  # type: ignore[attr-defined]
    assert ranks["in"]["rank"] == 0.25  # the site fell farthest of the four
    assert ranks["in"]["beyond_median"] == pytest.approx(CUT - 1, abs=0.05)
    assert ranks["near"]["beyond_median"] == pytest.approx(0, abs=0.05)
    assert all(abs(d["relative"]) < 0.1 for d in record["placebo_dates"])  # type: ignore[attr-defined]
    text = markdown(json.loads(json.dumps(record)))
    assert "[A](https://a.example)" in text
    assert "0.25 of 4" in text


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"placebo_dates": ["2018-05-20"]}, "placebo date 2018-05-20 lies less than 28 days before the measure"),
        ({"targets": [{"signal": "smog", "nodes": ["a"]}]}, "targets.0: Value error, unknown signal 'smog'"),
        ({"colour": 1}, "colour: Extra inputs"),
    ],
)
def test_a_study_that_cannot_be_is_told(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(json.dumps(STUDY | change), encoding="utf-8")
    with pytest.raises(CityError, match=told):
        read_study(path)


@pytest.mark.parametrize(
    ("signal", "node", "told"),
    [("no2", "nowhere", "has no no2 at nowhere"), ("pm25", "in", "has no pm25 at in"), ("no2", "new", "60 days")],
)
def test_what_was_not_measured_is_named(city: City, signal: str, node: str, told: str) -> None:
    with pytest.raises(CityError, match=told):
        counterfactual(city, signal, node, DATE)


def test_the_command_writes_the_record_and_says_it(
    city: City, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    city.save(tmp_path / "city")
    study = tmp_path / "study.yaml"
    study.write_text(json.dumps(STUDY | {"targets": [{"signal": "no2", "nodes": ["in"]}]}), encoding="utf-8")
    with pytest.raises(SystemExit) as left:
        main(["effect", str(study), "--city", str(tmp_path / "city"), "--out", str(tmp_path / "out.json")])
    assert not left.value.code
    record = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert record["effects"][0]["relative"] == pytest.approx(CUT - 1, abs=0.03)
    assert capsys.readouterr().out.strip() == markdown(record).strip()


ROOT = Path(__file__).parents[2]
RECORD = ROOT / "docs" / "effect-madrid.json"


def test_the_documented_study_is_the_recorded_one() -> None:
    text = (ROOT / "docs" / "scenarios.md").read_text(encoding="utf-8")
    assert markdown(json.loads(RECORD.read_text(encoding="utf-8"))).strip() in text


def test_madrid_central_again() -> None:
    data = Path(os.environ.get("CITYBRAIN_DATA", ROOT.parent / "shared" / "data"))
    if not (data / "madrid").is_dir():
        pytest.skip("the measured data of Madrid are not here")
    from citybrain_datasets.checking import open_city

    city, _ = open_city("madrid", data)
    date = pd.Timestamp("2018-11-30", tz=city.timezone).tz_convert("UTC")
    kept = json.loads(RECORD.read_text(encoding="utf-8"))
    (site,) = [e for e in kept["effects"] if (e["signal"], e["node"]) == ("no2", "35")]
    again = estimate(counterfactual(city, "no2", "35", date, folds=False))
    assert again.change == pytest.approx(site["change"], rel=0.05)
    assert again.measured == pytest.approx(site["measured"], rel=1e-3)
