"""``/v1/scenarios``: what would happen if measures were taken now."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import structlog
from fastapi import APIRouter, Path, Request, Response
from starlette.concurrency import run_in_threadpool

from citybrain_datasets.errors import CityError, ConfigError
from citybrain_datasets.scenarios.places import clock
from citybrain_models.files import BundleError
from citybrain_models.surrogate.bundle import SurrogateBundle
from citybrain_models.surrogate.scorer import Scorer
from citybrain_serving.chinese import translated
from citybrain_serving.database import TEXT
from citybrain_serving.encoding import ARROW, JSON, utc
from citybrain_serving.errors import BadScenario, NoSurrogate
from citybrain_serving.languages import asked_language, spoken
from citybrain_serving.negotiation import preferred
from citybrain_serving.routes.documentation import problems, schema
from citybrain_serving.safety.gate import principal_of
from citybrain_serving.scenarios.asking import ScenariosBody, read_scenarios_of
from citybrain_serving.scenarios.jobs import AT_ONCE, Jobs, score
from citybrain_serving.scenarios.ledger import Job, Ledger
from citybrain_serving.scenarios.now import Ground, base_now, last_known, pm25_now
from citybrain_serving.scenarios.parts import RunError
from citybrain_serving.scenarios.ranking import check_measured
from citybrain_serving.scenarios.run import surrogate_for
from citybrain_serving.schemas.scenarios import JobBody, RankingBody
from citybrain_serving.service import Service
from citybrain_serving.snapshot import Forecast

log = structlog.get_logger(__name__)

PARQUET = "application/vnd.apache.parquet"
OFFERED = (JSON, ARROW, PARQUET)
RANKING: dict[str, Any] = {
    "description": "The ranking",
    "content": {
        JSON: {"schema": schema(RankingBody)},
        **{media: {"schema": {"type": "string", "format": "binary"}} for media in (ARROW, PARQUET)},
    },
}
JOB: dict[str, Any] = {"description": "A job, and how far it is", "content": {JSON: {"schema": schema(JobBody)}}}
JOB_LINKS = {
    name: {"operationRef": f"#/paths/~1v1~1scenarios~1{{job}}{rest}", "parameters": {"job": "$response.body#/id"}}
    for name, rest in (("status", "/get"), ("results", "~1results/get"), ("cancel", "~1cancel/post"))
}
ASKED: dict[int | str, dict[str, Any]] = {
    200: RANKING,
    202: {**JOB, "links": JOB_LINKS, "headers": {"Location": {"schema": {"type": "string"}}}},
    **problems(400, 404, 406, 422, 503),
}
RESULTS: dict[int | str, dict[str, Any]] = {
    200: RANKING,
    202: {**JOB, "headers": {"Retry-After": {"schema": {"type": "string"}}}},
    **problems(404, 406, 422, 503),
}

NEWEST = pd.Timedelta(hours=1)
"""A flow measured longer ago says nothing of now."""


def router(service: Service) -> APIRouter:
    routes = APIRouter(prefix="/v1/scenarios", tags=["scenarios"])
    bundle_of = functools.cache(lambda: _bundle(service))
    threads = service.settings.threads
    jobs = Jobs(Ledger(service.store.engine), bundle_of, threads)

    @routes.post("", summary="Score measures against the current forecast", responses=ASKED)
    async def ask(request: Request, body: ScenariosBody) -> Response:
        """Up to 64 scenarios are answered at once, ranked, as JSON, Arrow or Parquet; for more the answer is 202 with
        a job, whose address is in `Location`. Measures hold by the city's clock and calendar in the `hours` that are
        judged; the `air` stands on the forecast of PM2.5 at the stations, where there is one, and what traffic emits is
        dispersed as in usual `weather`. Each outcome comes with its change against the base and the bounds of the
        change (90 %); `grade` says where it comes from, and `outside` why a scenario goes beyond what the
        surrogate has learnt."""
        media = preferred(request.headers.get("accept"), OFFERED)
        who, ledger = principal_of(request).name, request.app.state.ledger

        def answer() -> Response:
            scenarios = read_scenarios_of(body)
            bundle = bundle_of()
            ground, about = _ground(service, bundle, body.base)
            scorer = ground.scorer(bundle, threads)
            _check_weights(scorer, body.weights)
            about |= _judged(scorer)
            weathers = {scenario.weather for scenario in scenarios} - scorer.air.keys()
            if weathers:
                raise BadScenario("weather: only the usual weather is answered here; use `citybrain score` for others")
            noted = {"scenarios": len(scenarios), "surrogate": bundle.digest, **about}
            if len(scenarios) > AT_ONCE:
                job = jobs.submit(who, body, len(scenarios), ground, about)
                ledger.record(who, "asks for scenarios", job=job.id, **noted)
                return _told(job, {"Location": f"/v1/scenarios/{job.id}"})
            ledger.record(who, "asks for scenarios", **noted)
            try:
                table = score(scorer, scenarios, body.weights)
            except CityError as error:
                told = [{"where": problem.where, "what": problem.what} for problem in error.problems]
                raise BadScenario(str(error), {"errors": told}) from None
            assert table is not None
            return _encoded(table, media, about)

        return await run_in_threadpool(answer)

    @routes.get("", summary="Your jobs, the newest first", response_model=list[JobBody], responses=problems(503))
    def mine(request: Request) -> Response:
        """Those under way and the last that ended; of all jobs together 32 ended ones are kept."""
        found = jobs.list(principal_of(request).name)
        return _json([_document(job) for job in found])

    @routes.get("/{job}", summary="How far a job is", response_model=JobBody, responses=problems(404, 422, 503))
    def status(request: Request, job: str = Path(pattern=TEXT, description="its id")) -> Response:
        return _told(_mine(jobs, request, job), status=200)

    @routes.get("/{job}/results", summary="The ranking of a job", responses=RESULTS)
    async def results(request: Request, job: str = Path(pattern=TEXT, description="its id")) -> Response:
        """The ranking as JSON, Arrow or Parquet; 202 with the job's state while it is under way."""
        media = preferred(request.headers.get("accept"), OFFERED)
        found = await run_in_threadpool(_mine, jobs, request, job)
        if found.state == "failed":
            raise BadScenario(found.problem)
        if found.state != "done":
            return _told(found, {"Retry-After": "2"})
        table = await run_in_threadpool(jobs.ledger.result, found.id)
        return await run_in_threadpool(_encoded, table, media, found.about)

    @routes.post(
        "/{job}/cancel",
        summary="Stop a job",
        status_code=202,
        response_model=JobBody,
        responses=problems(404, 422, 503),
    )
    def cancel(request: Request, job: str = Path(pattern=TEXT, description="its id")) -> Response:
        """A job that has ended stays as it is."""
        found = _mine(jobs, request, job)
        request.app.state.ledger.record(principal_of(request).name, "cancels a scenario job", job=found.id)
        found = jobs.cancel(found)
        return _told(found)

    return routes


def _mine(jobs: Jobs, request: Request, job: str) -> Job:
    return jobs.get(job, principal_of(request).name)


def _bundle(service: Service) -> SurrogateBundle:
    city = service.fleet.city
    try:
        bundle = SurrogateBundle.read(surrogate_for(city.name))
    except RunError as error:
        raise NoSurrogate(str(error)) from None
    except BundleError as error:  # whoever asks can do nothing about it; whoever runs the service can
        log.error("the surrogate cannot be read", error=str(error))
        raise NoSurrogate(f"the surrogate of {city.name} cannot be read here") from None
    if bundle.city.ids("road") != city.ids("road"):
        raise NoSurrogate(f"the surrogate of {city.name} was trained for other roads than those served here")
    return bundle


def _ground(service: Service, bundle: SurrogateBundle, base: str) -> tuple[Ground, dict[str, object]]:
    """What measures are held against, and what that is in words."""
    snapshot = service.snapshot
    forecast = None if snapshot is None else snapshot.forecasts.get("congestion")
    if base == "usual" or snapshot is None or forecast is None or forecast.task.target != "speed":
        why = "" if base == "usual" else "no forecast of speed has been published yet"
        return Ground(bundle.usual), {"base": "usual", "reason": _spoken(why), "air": _usual_air("")}
    flow = np.full(len(bundle.network.ids), np.nan)
    if "flow" in service.fleet.channels:
        newest = service.store.newest().get("flow")
        if newest is not None and newest >= forecast.issued - NEWEST:
            flow = last_known(service.trusted.read("flow", forecast.issued - NEWEST, newest).values)
    pm25, air = _air(service, bundle, snapshot.forecasts.get("pm25"), forecast.issued)
    about = {"base": "now", **_issued(service, forecast), "reason": "", "air": air}
    return Ground(base_now(bundle, forecast, flow), pm25), about


def _air(
    service: Service, bundle: SurrogateBundle, forecast: Forecast | None, begin: pd.Timestamp
) -> tuple[np.ndarray | None, dict[str, object]]:
    """PM2.5 forecast for the stations in the hours from ``begin`` on, and what the air is in words."""
    if forecast is None or forecast.task.target != "pm25":
        return None, _usual_air("no forecast of PM2.5 has been published yet")
    pm25 = pm25_now(bundle, forecast, service.fleet.city.ids("air"), begin)
    if pm25 is None:
        return None, _usual_air("the forecast of PM2.5 does not tell of these hours")
    return pm25, {"base": "now", **_issued(service, forecast), "reason": ""}


def _usual_air(why: str) -> dict[str, object]:
    return {"base": "usual", "reason": _spoken(why)}


def _issued(service: Service, forecast: Forecast) -> dict[str, object]:
    return {
        "issued": utc(forecast.issued),
        "forecast": forecast.digest,
        "source": forecast.source,
        "stale": service.stale(forecast),
    }


def _spoken(why: str) -> str:
    return translated(why, asked_language())


def _check_weights(scorer: Scorer, weights: Mapping[str, float]) -> None:
    try:
        check_measured(weights, len(scorer.place.stations))
    except ConfigError as error:
        raise BadScenario(str(error)) from None


def _judged(scorer: Scorer) -> dict[str, object]:
    """The hours that outcomes are of, and whose weather their air is in."""
    table = scorer.timetable
    hours = {"begin": clock(table.begin), "end": clock(table.end), "days": table.days}
    return {"hours": hours, "weather": "usual"}


def _told(job: Job, headers: Mapping[str, str] = MappingProxyType({}), status: int = 202) -> Response:
    return _json(_document(job), status, headers)


def _document(job: Job) -> dict[str, Any]:
    return {
        "id": job.id,
        "state": job.state,
        "scenarios": job.count,
        "scored": job.scored,
        "problem": "; ".join(map(_translated, job.problem.splitlines())) or None,
        "results": f"/v1/scenarios/{job.id}/results",
        **job.about,
    }


def _json(document: object, status: int = 200, headers: Mapping[str, str] = MappingProxyType({})) -> Response:
    return Response(orjson.dumps(document), status, {**headers, **spoken(asked_language())}, JSON)


def _translated(line: str) -> str:
    """A line that a job failed with; a place that it begins with stays as it is."""
    place, colon, what = line.partition(": ")
    language = asked_language()
    whole = translated(line, language)
    return whole if whole != line or not colon else f"{place}: {translated(what, language)}"


def _encoded(table: pa.Table, media: str, about: Mapping[str, object]) -> Response:
    if media == JSON:
        rows = [{k: None if v != v else v for k, v in row.items()} for row in table.to_pylist()]
        for row in rows:
            row["outside"] = "; ".join(translated(why, asked_language()) for why in str(row["outside"]).split("; "))
        return Response(orjson.dumps({**about, "scenarios": rows}), headers=spoken(asked_language()), media_type=JSON)
    table = table.replace_schema_metadata({"citybrain": orjson.dumps(dict(about))})
    sink = pa.BufferOutputStream()
    if media == PARQUET:
        pq.write_table(table, sink, compression="zstd")
    else:
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
    return Response(sink.getvalue().to_pybytes(), media_type=media)
