"""Bundles changed while the service runs: one swapped for another, taken back, or tried in the shadow."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import structlog

from citybrain_models.bundle import Bundle, BundleError
from citybrain_models.onnx_forecaster import OnnxForecaster
from citybrain_serving.cycle import Cycle, FeaturedForecaster
from citybrain_serving.errors import FleetError, NotNow, UnfitBundle
from citybrain_serving.fleet import Fleet
from citybrain_serving.inference.network import unmeasured
from citybrain_serving.memory import give_back
from citybrain_serving.quality import Quality
from citybrain_serving.snapshot import Forecast

Note = Callable[[Bundle, Bundle], None]

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Model:
    """A bundle, and what runs it."""

    bundle: Bundle
    forecaster: FeaturedForecaster


class Roster:
    """Which bundle answers for each task and which one did before.

    ``swapped`` is called after each change, in the thread that asked for it. Requests go on meanwhile: what is
    published stands until the next cycle, and who reads from it never sees a change half made.
    """

    def __init__(self, fleet: Fleet, cycle: Cycle, quality: Quality, threads: int, swapped: Callable[[Bundle], None]):
        self.fleet = fleet
        self.cycle = cycle
        self.quality = quality
        self.threads = threads
        self.swapped = swapped
        self._before: dict[str, Model] = {}
        self._one_at_a_time = threading.Lock()

    def previous(self, task: str) -> Bundle | None:
        """The bundle that a rollback would bring back."""
        kept = self._before.get(task)
        return None if kept is None else kept.bundle

    def swap(self, bundle: Bundle, note: Note) -> Bundle:
        """Puts ``bundle`` in the place of the one that forecasts its task, and returns that one; where it is that one
        already nothing changes here, so that a swap asked for twice keeps the way back.

        ``note`` is told the new and the old one right before; what it raises leaves everything as it is.
        Raises :class:`UnfitBundle` where it is of another city, cannot be run, or its forecast of this moment would
        not be published; then nothing has changed.
        """
        with self._one_at_a_time:
            held = self.fleet.bundles[bundle.task.name]
            if bundle.digest == held.digest:
                note(bundle, held)  # other replicas may be on their way to another
                return held
            return self._put(ready(self.fleet, self.cycle, self.quality, bundle, self.threads), note)

    def rollback(self, task: str, note: Note) -> Bundle:
        """Brings back the bundle before the last swap, still warm, and returns the one that it replaces.

        Raises :class:`NotNow` where nothing was swapped.
        """
        with self._one_at_a_time:
            kept = self._before.get(task)
            if kept is None:
                raise NotNow(f"no bundle of {task} was swapped since the service started")
            return self._put(kept, note)

    def take_up(self, task: str, digest: str, read: Callable[[], Bundle], note: Note) -> None:
        """Puts the bundle called ``digest`` to work, which another replica was given: the one before the last swap
        where that is it, else the one that ``read`` finds; nothing where it is in use by now.

        Raises :class:`UnfitBundle`, and what ``read`` raises; then nothing has changed.
        """
        with self._one_at_a_time:
            if self.fleet.bundles[task].digest == digest:
                return
            kept = self._before.get(task)
            if kept is None or kept.bundle.digest != digest:
                bundle = read()
                if bundle.digest != digest:
                    raise UnfitBundle(f"where the bundle {digest[:12]} of {task} lay is another one by now")
                kept = ready(self.fleet, self.cycle, self.quality, bundle, self.threads)
            self._put(kept, note)

    def _put(self, model: Model, note: Note) -> Bundle:
        task = model.bundle.task.name
        held = Model(self.fleet.bundles[task], self.cycle.forecasters[task])
        note(model.bundle, held.bundle)
        self.cycle.swap(model.bundle, model.forecaster)
        self._before[task] = held
        give_back()
        log.info("bundle swapped", task=task, bundle=model.bundle.version, before=held.bundle.version)
        self.swapped(model.bundle)
        return held.bundle


class Shadows:
    """Challengers: each forecasts what its champion forecasts, from the same window. Their forecasts are kept to be
    scored and answered to nobody."""

    def __init__(self, fleet: Fleet, cycle: Cycle, quality: Quality, bundles: Iterable[Bundle], threads: int):
        """Raises :class:`FleetError` for two challengers of one task, or one that is its champion."""
        self.cycle = cycle
        self.quality = quality
        self.models: dict[str, Model] = {}
        for bundle in bundles:
            task = bundle.task.name
            fleet.admit(bundle)
            if task in self.models:
                raise FleetError(f"two bundles are to be the shadow of {task}; one service takes one")
            if bundle.version == fleet.bundles[task].version:
                raise FleetError(f"the shadow of {task} is the bundle that answers")
            self.models[task] = Model(bundle, OnnxForecaster(bundle, threads))
        self._done: dict[str, Forecast] = {}
        self.recall()

    def forecasts(self, champions: Mapping[str, Forecast]) -> list[Forecast]:
        """Forecasts beside those of ``champions`` that are new since the last call. A model that fails has none."""
        made = []
        for task, model in self.models.items():
            champion = champions[task]
            if self._done.get(task) is champion or champion.bundle == model.bundle.version:
                continue
            self._done[task] = champion
            version = model.bundle.version
            forecast = self.cycle.forecast(model.forecaster, version, champion.issued, champion.computed, "shadow")
            if forecast.source == "shadow":
                made.append(forecast)
        return made

    def recall(self) -> None:
        """Gives each the quantiles that outcomes have taught it so far."""
        for model in self.models.values():
            if isinstance(model.forecaster, OnnxForecaster):
                model.forecaster.calibration = self.quality.learnt(model.bundle)


def ready(fleet: Fleet, cycle: Cycle, quality: Quality, bundle: Bundle, threads: int) -> Model:
    """A model that fits the service, loaded, and warmed up on the newest window. Raises :class:`UnfitBundle`."""
    try:
        fleet.admit(bundle)
        forecaster = OnnxForecaster(bundle, threads)
    except (BundleError, FleetError) as error:
        raise UnfitBundle(str(error)) from None
    forecaster.calibration = quality.learnt(bundle)
    try:
        forecaster.forecast(unmeasured(forecaster.features, bundle))
    except Exception as error:  # noqa: BLE001  # whatever a model or its runtime raises, the city keeps the one it has
        raise UnfitBundle(f"it cannot be run: {error}") from None
    rehearsed = cycle.rehearse(forecaster, bundle.version)
    if rehearsed.source == "fallback" and rehearsed.inputs.newest is not None:
        raise UnfitBundle(f"its forecast of this moment could not be published: {rehearsed.reason}")
    return Model(bundle, forecaster)
