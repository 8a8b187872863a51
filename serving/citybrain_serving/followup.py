"""What follows from a snapshot once it is published: problems, listeners, history, cases, scores, learning."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import structlog

from citybrain_models.onnx_forecaster import OnnxForecaster
from citybrain_serving.cases.sight import Sight
from citybrain_serving.cases.watch import Watch
from citybrain_serving.cycle import FeaturedForecaster
from citybrain_serving.errors import StoreUnavailable
from citybrain_serving.history import History
from citybrain_serving.lanes.waiting import WaitingLanes
from citybrain_serving.problems.finding import Finder, Problem
from citybrain_serving.quality import Quality
from citybrain_serving.replicas.relay import Relay
from citybrain_serving.roster import Shadows
from citybrain_serving.snapshot import Forecast, Snapshot
from citybrain_serving.stream import Stream
from citybrain_serving.weather.store import WeatherForecasts

FORGET_EVERY = pd.Timedelta(hours=1)

SET = pd.Timedelta(days=1)
"""A clock that goes on by more than this, or goes back, was set. What it would have forgotten waits until it has gone
on evenly for an hour: a month of forecasts is soon deleted, and does not come back with the right time."""

log = structlog.get_logger(__name__)


class Followup:
    """Called by the cycle's thread alone, after the swap: whatever goes wrong here, the forecast is out."""

    def __init__(
        self,
        stream: Stream,
        relay: Relay,
        history: History,
        quality: Quality,
        forecasters: Mapping[str, FeaturedForecaster],
        finder: Finder,
        watch: Watch,
        shadows: Shadows,
        weather: WeatherForecasts,
        lanes: WaitingLanes,
        keep_for: pd.Timedelta,
    ):
        self.stream = stream
        self.relay = relay
        self.history = history
        self.quality = quality
        self.forecasters = forecasters
        self.finder = finder
        self.watch = watch
        self.shadows = shadows
        self.weather = weather
        self.lanes = lanes
        self.keep_for = keep_for
        self.problems: Mapping[str, list[Problem]] = {}
        """By task, of the newest snapshot; replaced as a whole."""
        self._sight = Sight(finder.board.stale_steps)
        self._watched: dict[str, pd.Timestamp] = {}
        self._kept: dict[str, Forecast] = {}
        self._forgotten: pd.Timestamp | None = None
        self._told: Snapshot | None = None

    def show(self, snapshot: Snapshot) -> None:
        """What every replica does, whoever computed the snapshot."""
        if snapshot is not self._told:
            self._told = snapshot
            self.problems = self.finder.find(snapshot)
            self.stream.publish(snapshot)

    def __call__(self, snapshot: Snapshot) -> None:
        """What the one does that computed it."""
        self.show(snapshot)
        try:
            self._keep(snapshot)
            self._watch(snapshot)
            self._learn(snapshot.computed)
            for forecast in self.shadows.forecasts(snapshot.forecasts):
                self.history.keep(forecast)
        except StoreUnavailable:
            # What was not kept is kept with the next snapshot; what was not scored or watched is still due.
            log.warning("history, cases and scores wait for the store", exc_info=True)

    def _keep(self, snapshot: Snapshot) -> None:
        new = {name: f for name, f in snapshot.forecasts.items() if self._kept.get(name) is not f}
        if new:
            self.relay.publish(new.values())
            self._kept |= new
        self._forget(snapshot.computed)

    def _forget(self, now: pd.Timestamp) -> None:
        since = None if self._forgotten is None else now - self._forgotten
        if since is None or not pd.Timedelta(0) <= since <= SET:
            self._forgotten = now
        elif since >= FORGET_EVERY:
            self.history.forget(now - self.keep_for)
            self.weather.forget(now - self.keep_for)
            self.lanes.forget(now)
            self._forgotten = now

    def _watch(self, snapshot: Snapshot) -> None:
        """Only what was issued later counts: a forecast computed again from late data is not a second sign."""
        issued = {n: f.issued for n, f in snapshot.forecasts.items() if f.issued != self._watched.get(n)}
        if issued:
            now = snapshot.computed
            seen = {name: self._sight.anew(snapshot.forecasts[name], now) for name in issued}
            places = {name: self.finder.board.places[snapshot.forecasts[name].task.node] for name in issued}
            ids = {name: frozenset(places[name].ids[row] for row in np.flatnonzero(seen[name])) for name in issued}
            self.watch.update({name: self.problems[name] for name in issued}, now, ids)
            self._watched |= issued
            for name in issued:
                self._sight.counted(snapshot.forecasts[name], seen[name])

    def _learn(self, now: pd.Timestamp) -> None:
        self.quality.update(now)
        models = [f.bundle for f in self.forecasters.values() if isinstance(f, OnnxForecaster)]
        shadows = [model.bundle for model in self.shadows.models.values()]
        if self.quality.learn([*models, *shadows], now):
            self.recall()

    def recall(self) -> None:
        """Gives each model, shadows included, the quantiles that outcomes have taught it so far."""
        for forecaster in self.forecasters.values():
            if isinstance(forecaster, OnnxForecaster):
                forecaster.calibration = self.quality.learnt(forecaster.bundle)
        self.shadows.recall()
