"""DATEX II v3.7 out: a forecast as an ``ElaboratedDataPublication``."""

from __future__ import annotations

from statistics import NormalDist
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from citybrain_serving.encoding import utc
from citybrain_serving.service import Service
from citybrain_serving.snapshot import Forecast
from citybrain_serving.standards.ngsi_out import Page

_DATA = {
    "speed": '<roa:basicData xsi:type="roa:TrafficSpeed">{time}<roa:averageVehicleSpeed{spread}>'
    "<com:speed>{value:.2f}</com:speed></roa:averageVehicleSpeed></roa:basicData>",
    "flow": '<roa:basicData xsi:type="roa:TrafficFlow">{time}<roa:vehicleFlow{spread}>'
    "<com:vehicleFlowRate>{value:.0f}</com:vehicleFlowRate></roa:vehicleFlow></roa:basicData>",
    "occupancy": '<roa:basicData xsi:type="roa:TrafficConcentration">{time}<roa:occupancy{spread}>'
    "<com:percentage>{value:.2f}</com:percentage></roa:occupancy></roa:basicData>",
    "pm25": '<roa:basicData xsi:type="roa:PollutionInformation">{time}<roa:pollution>'
    '<com:pollutantType _extendedValue="particulates2_5">_extended</com:pollutantType>'
    "<com:pollutantConcentration{spread}><com:microgramsConcentration>{value:.2f}</com:microgramsConcentration>"
    "</com:pollutantConcentration></roa:pollution></roa:basicData>",
}
"""Basic data of each target, in km/h, whole vehicles an hour, per cent and µg/m³."""
_QUANTITY = (
    '<roa:physicalQuantity xsi:type="roa:SinglePhysicalQuantity"><roa:forecast>true</roa:forecast>'
    '<roa:pertinentLocation xsi:type="loc:LocationByReference">'
    '<loc:predefinedLocationReference targetClass="loc:PredefinedLocation" id={place} version="1"/>'
    "</roa:pertinentLocation>{faults}{data}</roa:physicalQuantity>\n"
)
_FAULT = (
    "<roa:physicalQuantityFault><com:faultIdentifier>{name}</com:faultIdentifier>"
    '<com:faultDescription><com:values><com:value lang="en">{why}</com:value></com:values></com:faultDescription>'
    "<com:faultLastUpdateTime>{time}</com:faultLastUpdateTime>{kind}</roa:physicalQuantityFault>"
)
_STALE = '<roa:physicalQuantityFaultType _extendedValue="stale">_extended</roa:physicalQuantityFaultType>'
_DOUBTED = "<roa:physicalQuantityFaultType>spuriousUnreliableDataValues</roa:physicalQuantityFaultType>"
_TIME = (
    "<roa:measurementOrCalculationTime><roa:timeMeaning>endTime</roa:timeMeaning>"
    "<roa:timeValue>{time}</roa:timeValue></roa:measurementOrCalculationTime>"
)
_HEAD = """<?xml version="1.0" encoding="UTF-8"?>
<d2:payload xmlns:d2="http://datex2.eu/schema/3/d2Payload" xmlns:com="http://datex2.eu/schema/3/common"\
 xmlns:roa="http://datex2.eu/schema/3/roadTrafficData" xmlns:loc="http://datex2.eu/schema/3/locationReferencing"\
 xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="roa:ElaboratedDataPublication" lang="en"\
 modelBaseVersion="3" profileName="citybrain" profileVersion="1">
<com:feedDescription><com:values><com:value lang="en">{description}</com:value></com:values></com:feedDescription>
<com:publicationTime>{published}</com:publicationTime>
<com:publicationCreator><com:country>{country}</com:country>\
<com:nationalIdentifier>CITYBRAIN-{city}</com:nationalIdentifier></com:publicationCreator>
<roa:forecastDefault>true</roa:forecastDefault>
<roa:periodDefault>{period}</roa:periodDefault>
<roa:headerInformation><com:informationStatus>{status}</com:informationStatus></roa:headerInformation>
"""


def publication(service: Service, forecast: Forecast, page: Page) -> bytes:
    """UTF-8 XML with a quantity for each node and lead of ``page``: the median, and as its standard deviation that of
    the normal distribution with the outermost quantiles. (``speedPercentile`` is a share of vehicles and no forecast
    quantile, so it is not used.) A forecast that is stale or doubted is a fault of every quantity, ``stale`` or
    ``doubted`` by its identifier. A simulated city's status is ``test``, that of one without a country ``zz``."""
    city, task = service.fleet.city, forecast.task
    places = service.board.places[task.node]
    faults = _faults(service, forecast)
    head = _HEAD.format(
        description=escape(f"{task.name}, issued {utc(forecast.issued)} by {forecast.source} {forecast.bundle}"),
        published=utc(forecast.computed),
        country=(city.country or "zz")[:2].lower(),
        city=escape(city.name),
        period=60 * task.step_minutes,
        status="test" if city.synthetic else "real",
    )
    template, values = _DATA[task.target], forecast.values * (100 if task.target == "occupancy" else 1)
    times = [_TIME.format(time=utc(time)) for time in forecast.times]
    deviation = standard_deviation(values, task.quantiles)
    parts = [head]
    for row in page.rows.tolist():
        place = quoteattr(places.ids[row])
        for lead in page.leads:
            spread = "" if deviation is None else f' standardDeviation="{deviation[row, lead]:.2f}"'
            median = values[row, lead, task.median]
            data = template.format(time=times[lead], spread=spread, value=median)
            parts.append(_QUANTITY.format(place=place, faults=faults, data=data))
    parts.append("</d2:payload>\n")
    return "".join(parts).encode()


def _faults(service: Service, forecast: Forecast) -> str:
    time, told = utc(forecast.computed), ""
    if service.stale(forecast):
        why = "its observations are too old to rely on"
        told += _FAULT.format(name="stale", why=why, time=time, kind=_STALE)
    if forecast.doubted:
        told += _FAULT.format(name="doubted", why=escape(forecast.reason), time=time, kind=_DOUBTED)
    return told


def standard_deviation(values: np.ndarray, quantiles: tuple[float, ...]) -> np.ndarray | None:
    """Of the normal distribution that has the outermost of ``values [node, horizon, quantile]``, in their unit;
    None where there are not two different quantiles."""
    if len(quantiles) < 2:
        return None
    normal = NormalDist()
    width = normal.inv_cdf(quantiles[-1]) - normal.inv_cdf(quantiles[0])
    return np.asarray(values[..., -1] - values[..., 0]) / width
