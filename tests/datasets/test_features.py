"""Features: the same in training and serving, blind to the future, honest about what is missing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from citybrain_datasets.calendar import Calendar
from citybrain_datasets.city import City
from citybrain_datasets.errors import CityError
from citybrain_datasets.features import Features, Window
from citybrain_datasets.graph import graph_arrays
from citybrain_datasets.signals import Signal
from citybrain_datasets.statistics import Profile, Statistics, week_slots
from citybrain_datasets.task import Task, default_task
from citybrain_datasets.windows import WindowSource


@pytest.fixture(scope="module")
def city() -> City:
    embedded = City.load("embedded")
    return embedded.between(None, embedded.signals["speed"].start + pd.Timedelta(days=16))


def build(city: City, task: Task) -> tuple[Features, WindowSource]:
    until = city.signals[task.target].start + pd.Timedelta(days=10)
    statistics = Statistics.fit(city, task, until)
    placing = {name: signal.node for name, signal in city.signals.items()}
    features = Features(task, statistics, Calendar(city.timezone, city.country), placing)
    return features, WindowSource.of_city(features, city)


@pytest.mark.parametrize("name", ["congestion", "pm25"])
def test_nothing_later_than_the_issue_time_enters(city: City, name: str) -> None:
    features, source = build(city, default_task(city, name))
    issue = source.issues()[[-30, -10]]
    before = features(source.window(issue))
    wild = {
        key: Signal(key, s.node, s.start, s.step, np.where((s.times > issue[0])[:, None], 9_999, s.values))
        for key, s in city.signals.items()
    }
    later = WindowSource.of_city(features, city.replace(signals=wild))
    after = features(later.window(issue[:1]))
    for key, array in after.items():
        np.testing.assert_array_equal(array, before[key][:1], err_msg=key)


@pytest.mark.parametrize("name", ["congestion", "pm25"])
def test_a_window_alone_and_in_a_batch_and_from_fresh_data_only_is_the_same(city: City, name: str) -> None:
    """Training cuts batches from years; serving cuts one window from the newest steps."""
    task = default_task(city, name)
    features, source = build(city, task)
    issue = source.issues()[-5:]
    together = features(source.window(issue))
    newest = city.between(issue[-1] - (task.lookback + 1) * task.step, issue[-1])
    alone = features(WindowSource.of_city(features, newest).window(issue[-1:]))
    for key, array in alone.items():
        np.testing.assert_allclose(array, together[key][-1:], rtol=1e-6, atol=1e-6, err_msg=key)


def test_every_feature_is_finite_and_named_shapes_hold(city: City) -> None:
    features, source = build(city, default_task(city, "pm25"))
    arrays = features(source.window(source.issues()[:3]))
    assert all(np.isfinite(array).all() and array.dtype == np.float32 for array in arrays.values())
    assert arrays["x_air"].shape[:2] == (3, len(city.ids("air")))
    assert arrays["x_road"].shape[:2] == (3, len(city.ids("road")))
    assert arrays["anchor"].shape == (3, len(city.ids("air")), 2 + features.task.horizon)
    assert arrays["seen_air"].min() >= 0
    assert arrays["seen_air"].max() <= 1


def changed(city: City, **changes: object) -> Task:
    return Task.model_validate({**default_task(city, "pm25").model_dump(), **changes})


def test_what_is_known_of_the_future_is_measured_where_the_target_is_or_for_the_city(city) -> None:
    with pytest.raises(CityError, match="no signal 'dew_point'"):
        changed(city, known_future=("dew_point",)).check(city)
    at_roads = Signal("dew_point", "road", *(getattr(city.signals["flow"], n) for n in ("start", "step", "values")))
    with pytest.raises(CityError, match="signal dew_point: is measured at road nodes, expected air or city"):
        changed(city, known_future=("dew_point",)).check(city.replace(signals={**city.signals, "dew_point": at_roads}))


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (("humidity", "flow", "pm25"), "weather's, one of temperature, .*, not flow, pm25"),
        (("humidity", "humidity"), "names a signal twice"),
    ],
)
def test_what_is_known_of_the_future_is_the_weather(city, names, says) -> None:
    with pytest.raises(ValueError, match=says):
        changed(city, known_future=names)


def test_a_future_that_nobody_tells_is_masked(city: City) -> None:
    """Also of a signal that is read of the future alone."""
    features, source = build(city, changed(city, inputs=(), known_future=("temperature", "wind_direction")))
    window = source.window(source.issues()[:2])
    told = features(window)
    silent = features(Window(window.issue, window.values))
    horizon = features.task.horizon
    assert {k: v.shape for k, v in silent.items()} == {k: v.shape for k, v in told.items()}
    assert not silent["time"][:, -5 * horizon :].any()
    np.testing.assert_array_equal(silent["time"][:, : -5 * horizon], told["time"][:, : -5 * horizon])
    assert told["time"][:, -horizon:].any()


@pytest.mark.parametrize(
    ("ahead", "says"),
    [
        (("pm25", 3), "traffic that the context holds as well, not 'pm25'"),
        (("occupancy", 3), "not 'occupancy'"),
        (("flow", 0), "0 steps, must be 1 to the horizon's 72"),
        (("flow", 73), "73 steps, must be 1"),
    ],
)
def test_of_the_context_traffic_alone_is_forecast_within_the_horizon(city, ahead, says) -> None:
    with pytest.raises(ValueError, match=says):
        changed(city, context=("flow",), context_ahead=ahead)


def test_a_task_that_reads_no_traffic_ahead_is_written_as_before(city: City) -> None:
    assert "context_ahead" not in default_task(city, "pm25").model_dump(mode="json")
    reading = changed(city, context_ahead=("flow", 6))
    assert Task.model_validate_json(reading.model_dump_json()) == reading


def test_traffic_ahead_stands_beside_what_was_read_without_it(city: City) -> None:
    """Its departure from the weekly profile and its mask; both zero where nobody forecast it, as for the past."""
    steps = 6
    plain, _ = build(city, changed(city, context=("flow",)))
    features, source = build(city, changed(city, context=("flow",), context_ahead=("flow", steps)))
    window = source.window(source.issues()[:2])
    assert "flow" not in window.future
    before, silent = plain(window), features(window)
    told = features(forecasting(features, window, 100.0, steps))
    unknown = features(forecasting(features, window, np.nan, steps))
    for name, array in before.items():
        width = array.shape[-1]
        for given in (silent, told, unknown):
            np.testing.assert_array_equal(given[name][..., :width], array, err_msg=name)
    assert not silent["x_road"][..., -2 * steps :].any()
    np.testing.assert_array_equal(unknown["x_road"], silent["x_road"])
    departs = told["x_road"][..., -2 * steps : -steps]
    np.testing.assert_allclose(departs, 100 / features.statistics.scalers["flow"].std, rtol=1e-3)
    assert (told["x_road"][..., -steps:] == 1).all()


def forecasting(features: Features, window: Window, more: float, steps: int) -> Window:
    """The window with a forecast of ``more`` flow than usual."""
    history = features.task.history
    usual = features.profile("flow", window.issue)[:, history : history + steps]
    return Window(window.issue, window.values, {"flow": usual + np.float32(more)})


def test_a_profile_leaves_out_the_answer_while_training() -> None:
    random = np.random.default_rng(0)
    times = pd.date_range("2024-01-01 01:00", periods=21 * 24, freq="1h", tz="UTC")
    slots = week_slots(Calendar("UTC"), times, 60)
    values = random.normal(size=(len(times), 2)).astype(np.float32)
    profile = Profile.fit(values, slots, 60)
    with_it = profile.at(slots[None])[0]
    without = profile.at(slots[None], values[None])[0]
    assert np.corrcoef(with_it.ravel(), values.ravel())[0, 1] > 0.3
    assert abs(np.corrcoef(without.ravel(), values.ravel())[0, 1]) < 0.1


def test_a_profile_that_is_not_weekly_has_the_mean_of_each_place() -> None:
    times = pd.date_range("2024-01-01 01:00", periods=21 * 24, freq="1h", tz="UTC")
    slots = week_slots(Calendar("UTC"), times, 60)
    values = np.stack([times.hour.to_numpy() < 12, times.hour.to_numpy() < 6], axis=1).astype(np.float32)
    flat = Profile.fit(values, slots, 60, weekly=False)
    assert np.ptp(flat.mean, axis=0).max() == 0
    np.testing.assert_allclose(flat.at(slots[None], values[None])[0, 0], [0.5, 0.25], atol=0.01)


def test_graph_arrays_keep_the_nearest_and_drop_self_loops(city: City) -> None:
    task = default_task(city, "pm25")
    features, _ = build(city, task)
    arrays = graph_arrays(city, task, features.statistics, neighbours=4)
    assert set(arrays) == {
        "static_air", "static_road", "downstream_index", "downstream_edge", "upstream_index", "upstream_edge",
        "between_stations_index", "between_stations_edge", "road_to_air_index", "road_to_air_edge",
        "nearby_index", "nearby_edge", "sensed_air",
    }  # fmt: skip
    index, edge = arrays["road_to_air_index"], arrays["road_to_air_edge"]
    assert index.shape[1] <= 4
    table = city.edges["road-air"]
    for row, station in enumerate(city.ids("air")):
        senders = [city.ids("road")[i] for i, e in zip(index[row], edge[row], strict=True) if e[0]]
        nearest = table[table["target"] == station].nsmallest(4, "distance_m")["source"]
        assert set(senders) == set(nearest)


def test_a_finer_clock_holds_the_newest_value() -> None:
    hourly = Signal(
        "precipitation",
        "city",
        pd.Timestamp("2024-01-01 01:00", tz="UTC"),
        pd.Timedelta("1h"),
        np.array([[1.0], [2.0]]),
    )
    fine = hourly.at(pd.Timedelta("15min"))
    assert fine.start == hourly.start
    np.testing.assert_array_equal(fine.values[:, 0], [1, 1, 1, 1, 2, 2, 2, 2])


def test_a_coarser_clock_averages_whole_intervals_only() -> None:
    start = pd.Timestamp("2024-01-01 00:10", tz="UTC")
    quarter = Signal("speed", "road", start, pd.Timedelta("5min"), np.arange(12, dtype=np.float32)[:, None])
    coarse = quarter.at(pd.Timedelta("15min"))
    assert coarse.times[0] == pd.Timestamp("2024-01-01 00:30", tz="UTC")
    np.testing.assert_allclose(coarse.values[:, 0], [3, 6, 9])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"coarse": (0, 5)}, "coarse must be steps a block"),
        ({"coarse": (-4, -5)}, "coarse must be steps a block"),
        ({"quantiles": (0.5,)}, "below 0.5 and some above"),
        ({"quantiles": (0.5, 0.9)}, "below 0.5 and some above"),
    ],
)
def test_a_task_that_nobody_could_answer_is_refused(city: City, changes: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Task.model_validate({**default_task(city, "congestion").model_dump(), **changes})


def on_another_clock(city: City, name: str, step: str, late: str = "0min", length: int = 600) -> City:
    """``city`` with ``name`` measured every ``step``, ``late`` past its ticks."""
    signal = city.signals[name]
    values = np.full((length, signal.shape[1]), 30, np.float32)
    moved = Signal(name, signal.node, signal.start + pd.Timedelta(late), pd.Timedelta(step), values)
    return city.replace(signals={**city.signals, name: moved})


@pytest.mark.parametrize(
    ("step", "minutes", "days"), [("30s", 1, (1, 7)), ("90s", 3, (1, 7)), ("3h", 180, (7,)), ("1D", 1440, ())]
)
def test_the_default_task_fits_the_clock_that_roads_are_measured_on(
    city: City, step: str, minutes: int, days: tuple[int, ...]
) -> None:
    seldom = on_another_clock(city, "speed", step)
    task = default_task(seldom.replace(signals={"speed": seldom.signals["speed"]}), "congestion")
    task.check(seldom)
    assert (task.step_minutes, task.seasonal_days) == (minutes, days)


def test_a_clock_that_divides_no_day_is_told(city: City) -> None:
    with pytest.raises(CityError, match="signal speed: is measured every 0 days 00:07:00"):
        default_task(on_another_clock(city, "speed", "7min"), "congestion")


def test_signals_that_tick_between_the_others_are_named(city: City) -> None:
    task = Task(name="pm25", node="air", target="pm25", step_minutes=60, history=6, horizon=6, inputs=("temperature",))
    apart = on_another_clock(city, "temperature", "1h", "30min")
    with pytest.raises(CityError, match="signal temperature: ticks 0 days 00:30:00 past pm25"):
        build(apart, task)


def test_the_value_at_a_tick_is_not_asked_of_a_slower_clock(city: City) -> None:
    task = Task(name="pm25", node="air", target="pm25", step_minutes=30, history=6, horizon=6, sampling="last")
    with pytest.raises(CityError, match="signal pm25: of step 0 days 01:00:00 cannot be put"):
        task.check(on_another_clock(city, "pm25", "1h"))
