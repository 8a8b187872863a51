"""Bodies that nobody should send, to every address that takes one: each is refused as such, and nothing is stored."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import orjson
import sqlalchemy as sa

from citybrain_datasets.errors import CityBrainError
from citybrain_models.bundle import Bundle
from citybrain_serving.bench.processes import service
from citybrain_serving.bench.records import Notebook
from citybrain_serving.database import open_engine
from citybrain_serving.tables import cases, frames, weather_forecasts

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

SEED = 23
MEDIA = {
    "/v1/observations": ("application/json", "application/vnd.apache.arrow.stream"),
    "/v1/weather-forecasts": ("application/json",),
    "/v1/ngsi-ld/notifications": ("application/json", "application/ld+json"),
    "/v1/datex2/measured-data": ("application/xml", "text/xml"),
    "/v1/cases": ("application/json",),
    "/v1/cases/1/steps": ("application/json",),
    "/v1/models/{task}/swap": ("application/json",),
    "/v2/models/{task}/infer": ("application/json", "application/octet-stream"),
    "/v1/scenarios": ("application/json",),
}


def measure(book: Notebook, bundle: Bundle, folder: Path, *, bodies: int = 10_000) -> None:
    """Raises :class:`CityBrainError` where hypothesis, which makes the bodies, is not installed."""
    try:
        made = _made(bodies)
    except ModuleNotFoundError:
        raise CityBrainError(
            "bad bodies are made by hypothesis, which is not installed: pip install '.[dev]'"
        ) from None
    home, store = folder / "bodies" / "bundle", folder / "bodies" / "store.sqlite"
    bundle.write(home)
    statuses: Counter[int] = Counter()
    settings = {"rate_per_second": 1e9, "bundle_root": folder}
    with service([home], store, settings=settings) as server, httpx.Client(base_url=server.url, timeout=60) as client:
        for path, media, body in made:
            address = path.format(task=bundle.task.name)
            statuses[client.post(address, content=body, headers={"Content-Type": media}).status_code] += 1
        alive = client.get("/livez").status_code == 200
    tables = (frames, weather_forecasts, cases)
    with open_engine(str(store)).connect() as connection:
        stored = sum(connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0 for table in tables)
    case, note = "bad bodies", f"{len(made)} bodies to {len(MEDIA)} addresses: {dict(sorted(statuses.items()))}"
    errors = sum(count for status, count in statuses.items() if status >= 500 and status != 503)
    book.add(case, "citybrain", "bodies", len(made), "1", note=note)
    book.add(case, "citybrain", "internal_errors", errors, "1", note=note)
    book.add(case, "citybrain", "rows_stored", stored, "1", note="frames of observations and weather, cases")
    book.add(case, "citybrain", "alive_afterwards", int(alive), "1", note=note)


def bad_bodies() -> SearchStrategy[tuple[str, str, bytes]]:
    """Addresses, media types and bodies: JSON of every shape, among it the right names with wrong values, and bytes
    that are no document at all."""
    from hypothesis import strategies as st

    scalar = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    names = st.sampled_from(["observations", "forecasts", "issued", "id", "signal", "time", "unit", "task", "action",
                             "note", "data", "type", "inputs", "name", "shape", "datatype", "scenarios", "bundle",
                             "base"])  # fmt: skip
    wrong = st.recursive(
        scalar,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names | st.text(max_size=8), inner, max_size=6),
        max_leaves=15,
    )
    body = wrong.map(_json) | st.binary(max_size=200) | st.text(max_size=80).map(lambda t: f"<d2>{t}</d2>".encode())
    target = st.sampled_from([(path, media) for path, several in MEDIA.items() for media in several])
    return st.tuples(target, body).map(lambda pair: (*pair[0], pair[1]))


def _made(count: int) -> list[tuple[str, str, bytes]]:
    """``count`` of them, always the same."""
    from hypothesis import HealthCheck, Phase, given, seed, settings

    found: list[tuple[str, str, bytes]] = []

    @seed(SEED)
    @settings(max_examples=count, database=None, deadline=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(bad_bodies())
    def make(body: tuple[str, str, bytes]) -> None:
        found.append(body)

    make()
    random = np.random.default_rng(SEED)
    while len(found) < count:  # hypothesis ends early where it has seen enough
        path, media, content = found[int(random.integers(len(found)))]
        cut = int(random.integers(len(content) + 1))
        found.append((path, media, content[:cut] + bytes(random.integers(0, 256, 8, np.uint8)) + content[cut:]))
    return found[:count]


def _json(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except (TypeError, orjson.JSONEncodeError):  # integers beyond 64 bits, which JSON may well hold
        return repr(value).encode(errors="replace")
