"""A surrogate on a road network that it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pandas as pd

from citybrain_datasets.scenarios.actions import Window
from citybrain_datasets.scenarios.air import air_step
from citybrain_datasets.scenarios.outcomes import Traffic
from citybrain_datasets.scenarios.places import clock
from citybrain_datasets.scenarios.site import WARM_UP_S, Site
from citybrain_models.surrogate.bundle import SurrogateBundle
from citybrain_models.surrogate.network import Base, RoadNetwork, SurrogateError, describe
from citybrain_models.surrogate.scorer import USUAL_WEATHER, air_arrays


def applied(bundle: SurrogateBundle, site: Site, mornings: Sequence[Traffic]) -> SurrogateBundle:
    """The surrogate of ``bundle`` for the roads of ``site``, whose usual traffic is the mean of ``mornings``.

    ``mornings`` are the working days 0, 1, … of the site as simulated in :func:`window_there`, ``[slot, segment]``;
    routes are read from the trips of the same days. Intervals and reach stay those of the city it was trained on:
    nothing was simulated here that they could be fitted to. Takes seconds to minutes. Needs SciPy.
    Raises :class:`SurrogateError` where the window of ``mornings`` is another.
    """
    window, seconds = window_there(bundle, site), bundle.usual.slot_seconds
    if any(len(traffic.speed) != bundle.usual.slots for traffic in mornings):
        raise SurrogateError(f"the surrogate of {bundle.city.name} was trained for {bundle.usual.slots} slots of time")
    length = site.segments["length_m"].to_numpy(float)
    usual = Base.mean([Base.of(traffic, length, seconds) for traffic in mornings])
    trips = pd.concat([site.trips(day, window) for day in range(len(mornings))], ignore_index=True)
    trips["depart"] -= WARM_UP_S
    network = describe(site.city, trips[trips["depart"] >= 0], usual, signalled=site.signalled, days=len(mornings))
    step = air_step(site, USUAL_WEATHER, window, base_emission=usual.emission.T)
    return replace(
        bundle,
        city=site.city.replace(signals={}),
        window=window,
        network=RoadNetwork.from_arrays(network.arrays()),  # as it will be read back
        usual=usual,
        air=air_arrays(step),
        metrics={"trained_on": bundle.city.name, "surrogate": bundle.version},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        card=_card(bundle, site, window),
        digest="",
    )


def window_there(bundle: SurrogateBundle, site: Site) -> Window:
    """The hours in which the surrogate is applied to ``site``: the site's own where its demand is about some, else
    those it was trained on. Raises :class:`SurrogateError` where they are not as many."""
    window = site.window or bundle.window
    if window.steps != bundle.usual.slots:
        hours = bundle.usual.slots * bundle.usual.slot_seconds / 3600
        raise SurrogateError(
            f"{site.city.name}: {_hours(window)} are not {hours:g} hours, which is what the surrogate of "
            f"{bundle.city.name} tells; any {hours:g} hours may be given (--begin, --end)"
        )
    return window


def _hours(window: Window) -> str:
    return f"{clock(window.begin)}–{clock(window.end)}"


def _card(bundle: SurrogateBundle, site: Site, window: Window) -> str:
    other = window != bundle.window
    hours = f" It was trained on {_hours(bundle.window)} and tells {_hours(window)} here." if other else ""
    return (
        f"# {site.city.title or site.city.name}: what measures would change\n\n"
        f"The surrogate {bundle.version}, trained on {bundle.city.name}, applied to other roads. No scenario was "
        "simulated here: its accuracy and its intervals are those of the city it was trained on, and hold here only as "
        "far as its benchmark on other networks says. `citybrain score --verify` compares its best with the "
        f"simulation.{hours}\n"
    )
