"""What the measures of a scenario do on each segment in each slot of time, as numbers a network reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from citybrain_datasets.city import City
from citybrain_datasets.scenarios.actions import WARM_UP, Actions, Compiler, Timetable
from citybrain_datasets.scenarios.idle import Idle
from citybrain_datasets.scenarios.language import Scenario
from citybrain_models.surrogate.network import EMISSION_RATE, RoadNetwork
from citybrain_models.surrogate.spared import USUALLY_INFORMED, Spared

"""Times remembered, of which it is known whether anything holds in them."""
CHANNELS = (
    "lanes_closed",  # share of the lanes, 1 where wholly closed
    "closed",  # 1 where wholly closed
    "limit",  # logarithm of the new speed limit over the old one
    "retiming",  # share by which signals cost less
    "cancelled",  # trips on their usual routes that are not made, part of the capacity; negative where there are more
    "cancelled_share",  # the same as a part of the usual flow
    "cleaner",  # part of the usual exhaust of those trips that is not made or made by an electric vehicle
    "barred",  # vehicles on their way through that may not pass here, part of the capacity
    "barred_exhaust",  # their exhaust, part of what traffic at capacity emits
    "diverted",  # vehicles that come here because their way is closed or barred, part of the capacity
    "diverted_exhaust",  # their exhaust, part of what traffic at capacity emits
    "informed",  # share of drivers here who newly choose their way by current travel times
)


@dataclass(frozen=True)
class LeverArrays:
    """``levers`` float32 ``[batch, segment, slot, channel]``; ``closed``, same axes but the last, 1 where the
    segment is wholly closed; and what acts only on what is emitted, not on who drives: ``exhaust`` float32
    ``[batch, segment, slot]`` and ``sectors`` ``[batch, slot]`` by name, factors both. ``summary`` is that of
    :func:`summary` of the levers."""

    levers: np.ndarray
    closed: np.ndarray
    exhaust: np.ndarray
    sectors: dict[str, np.ndarray]
    summary: np.ndarray


def summary(levers: np.ndarray) -> np.ndarray:
    """Lowest, highest and mean value of each channel, ``[scenario, 3 · channel]``."""
    flat = levers.reshape(len(levers), -1, levers.shape[-1])
    return np.concatenate([flat.min(axis=1), flat.max(axis=1), flat.mean(axis=1)], axis=1)


class Levers:
    """Turns scenarios into :class:`LeverArrays` for one network in the steps of ``timetable``."""

    def __init__(self, city: City, network: RoadNetwork, timetable: Timetable):
        self.city, self.network, self.timetable = city, network, timetable
        self._compilers: dict[bool | None, Compiler] = {}
        self._spared = Spared(network)
        self.changes_nothing = Idle(
            city, timetable, signalled=network.signalled, informed=USUALLY_INFORMED,
            electric=self._spared.electric_already,
        )  # fmt: skip
        self._capacity = network.capacity_veh_h.astype(np.float32)
        self._diversion = (network.diversion / self._capacity).astype(np.float32)

    def __call__(self, scenarios: Sequence[Scenario], flow: np.ndarray, off: bool | None = None) -> LeverArrays:
        """``flow`` veh/h ``[segment, slot]`` is the traffic that the measures meet; ``off`` a day off, as the timetable
        says where it is None. Raises :class:`CityError` where a scenario names what the city does not have."""
        together, every = self._compiler(off).batch(scenarios)
        out = _Channels(len(scenarios), *flow.shape)
        self._supply(together, out)
        self._turned_away(every, flow.astype(np.float32), out)
        self._demand(every, flow, out)
        exhaust = np.ones((len(scenarios), *flow.shape), np.float32)
        if len(cleaner := _acting(together.exhaust[:, WARM_UP:] != 1)):
            exhaust[cleaner] = together.exhaust[cleaner, WARM_UP:].swapaxes(1, 2)
        return LeverArrays(
            out.levers,
            out.closed,
            exhaust,
            {name: factors[:, WARM_UP:] for name, factors in together.sectors.items()},
            out.summary.reshape(len(scenarios), -1),
        )

    def idle(self, scenario: Scenario) -> list[str]:
        """Why measures of a scenario change nothing, each with its lever's name."""
        reasons = (self.changes_nothing(measure) for measure in scenario.measures if measure.kept)
        return list(dict.fromkeys(reason.why for reason in reasons if reason is not None))

    def _compiler(self, off: bool | None) -> Compiler:
        if off not in self._compilers:
            table = self.timetable
            days = table.off if off is None else np.full(len(table.minutes), off)
            self._compilers[off] = Compiler(self.city, Timetable(table.minutes, days))
        return self._compilers[off]

    def _supply(self, together: Actions, out: _Channels) -> None:
        """What is so where the measures stand."""
        network = self.network
        shut = together.lanes_closed[:, WARM_UP:]
        if len(rows := _acting(shut != 0)):
            out.put("lanes_closed", rows, np.minimum(shut[rows] / network.lanes, 1))
            out.put("closed", rows, shut[rows] >= np.maximum(network.lanes, 1))
        limit = together.limit_kmh[:, WARM_UP:]
        if len(rows := _acting(limit != network.free_speed_kmh)):
            out.put("limit", rows, np.log(limit[rows] / network.free_speed_kmh))
        # Where no signal stands there is none to retime.
        signals = together.signals if network.signalled is None else np.where(network.signalled, together.signals, 1)
        if len(rows := _acting(signals != 1)):
            out.put("retiming", rows, np.broadcast_to(1 - signals[rows, None], shut[rows].shape))

    def _turned_away(self, every: Sequence[Actions], flow: np.ndarray, out: _Channels) -> None:
        """Vehicles that may not pass here, where they go instead, and what they burn."""
        barred = {row: found for row, a in enumerate(every) if (found := self._spared.turned_away(a)) is not None}
        rows = np.union1d(_acting(out.closed), list(barred)).astype(int)
        if not len(rows):
            return
        met, none = flow.T, np.zeros((4, *flow.T.shape), np.float32)
        here, burnt, leaving, leaving_burnt = np.stack([barred.get(r, none) for r in rows], axis=1) * met
        out.put("barred", rows, here / self._capacity)
        out.put("barred_exhaust", rows, burnt / (self._capacity * EMISSION_RATE))
        shut = out.closed[rows].swapaxes(1, 2)
        leaving = np.minimum(shut * met + leaving, met)
        leaving_burnt = leaving_burnt + shut * met * self._spared.exhaust
        # Nobody who is barred comes by another way to where he is barred.
        comes = np.where(here > 0, np.float32(0), np.float32(1))
        out.put("diverted", rows, comes * (leaving @ self._diversion))
        out.put("diverted_exhaust", rows, comes * (leaving_burnt @ self._diversion) / EMISSION_RATE)

    def _demand(self, every: Sequence[Actions], flow: np.ndarray, out: _Channels) -> None:
        """What follows along usual routes from trips that are not made, made otherwise, or newly informed."""
        load = (flow / self.network.capacity_veh_h[:, None]).T.astype(np.float32)
        for name, rows, share in self._spared.on_roads(every):
            out.put(name, rows, share)
            if name == "cancelled_share":
                out.put("cancelled", rows, share * load)


class _Channels:
    """The lever array of a batch, filled channel by channel where a measure acts, and its summary on the way."""

    def __init__(self, batch: int, segments: int, slots: int):
        self.levers = np.zeros((batch, segments, slots, len(CHANNELS)), np.float32)
        self.closed = np.zeros((batch, segments, slots), np.float32)
        self.summary = np.zeros((batch, 3, len(CHANNELS)), np.float32)

    def put(self, channel: str, rows: np.ndarray, values: np.ndarray) -> None:
        """``values [row, slot, segment]`` of the scenarios ``rows``."""
        number, values = CHANNELS.index(channel), values.astype(np.float32)
        self.levers[rows, ..., number] = values.swapaxes(1, 2)
        if channel == "closed":
            self.closed[rows] = values.swapaxes(1, 2)
        flat = values.reshape(len(rows), -1)
        self.summary[rows, :, number] = np.stack([flat.min(axis=1), flat.max(axis=1), flat.mean(axis=1)], axis=1)


def _acting(where: np.ndarray) -> np.ndarray:
    """The scenarios of a batch in which anything of ``where`` is so."""
    return np.flatnonzero(where.any(axis=tuple(range(1, where.ndim))))
