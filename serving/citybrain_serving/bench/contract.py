"""The OpenAPI document and the service keep to each other: every check of schemathesis, on every operation, against a
real server that asks for keys."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from citybrain_datasets.errors import CityBrainError
from citybrain_models.bundle import Bundle
from citybrain_serving.bench.cities import fill
from citybrain_serving.bench.processes import service
from citybrain_serving.bench.records import Notebook
from citybrain_serving.database import migrate, open_engine
from citybrain_serving.safety.keys import KeyRing
from citybrain_serving.safety.roles import Role

SEED = 29
PHASES = "examples,coverage,fuzzing,stateful"

OPAQUE = ("/v1/observations", "/v1/weather-forecasts", "/v1/datex2/measured-data", "/v2/models/{model}/infer",
          "/v2/models/{model}/versions/{version}/infer")  # fmt: skip
"""Bodies whose form another standard lays down (Arrow, XML, tensors), or has rules that this document cannot say
(columns of one length): some of what it allows is none, and that is 400."""

ACCEPTED = ("2xx", "3xx", "401", "403", "404", "409", "422", "429", "5xx")
"""Answers to what the document allows. 422 is among them, for what no grammar says; that it is not said of the form is
a check of its own."""

OFTEN = 0.8
"""How often what there is is asked for; otherwise whatever the document allows, which nobody has."""

CONFIG = """
hooks = "citybrain_serving.bench.contract_hooks"

[dictionaries]
tasks.values = {tasks}
versions.values = {versions}
nodes.values = {nodes}
lat.values = {lat}
lon.values = {lon}

[parameters]
"path.task" = {{ dictionary = "tasks", probability = {often} }}
"path.model" = {{ dictionary = "tasks", probability = {often} }}
"path.version" = {{ dictionary = "versions", probability = {often} }}
"query.lat" = {{ dictionary = "lat", probability = {often} }}
"query.lon" = {{ dictionary = "lon", probability = {often} }}

[checks.positive_data_acceptance]
expected-statuses = {accepted}

[[operations]]
include-path = {opaque}
checks.positive_data_acceptance.expected-statuses = {opaque_accepted}

[[operations]]
include-path = "/v1/cases"
[operations.parameters]
"body.task" = {{ dictionary = "tasks", probability = {often} }}
"body.id" = {{ dictionary = "nodes", probability = {often} }}

[[operations]]
include-path = "/v1/models/{{task}}/swap"
[operations.parameters]
"body.bundle" = {{ dictionary = "tasks", probability = {often} }}
"""


@dataclass(frozen=True)
class Findings:
    """``operations`` that were tested of ``known``, by how many requests; ``failures`` and ``errors`` in words."""

    known: int
    operations: int
    requests: int
    failures: list[str]
    errors: list[str]


def measure(book: Notebook, bundle: Bundle, folder: Path, *, examples: int = 50) -> None:
    found = examine([bundle], folder / "contract", examples=examples)
    case, note = "contract", f"schemathesis, all checks, at most {examples} examples an operation; {PHASES}"
    book.add(case, "citybrain", "operations", found.known, "1", note="of the OpenAPI document")
    book.add(case, "citybrain", "operations_tested", found.operations, "1", note=note)
    book.add(case, "citybrain", "requests", found.requests, "1", note=note)
    book.add(case, "citybrain", "failures", len(found.failures), "1", note="; ".join(found.failures)[:500])
    book.add(case, "citybrain", "errors", len(found.errors), "1", note="; ".join(found.errors)[:500])


def examine(bundles: Sequence[Bundle], folder: Path, *, examples: int) -> Findings:
    """Serves ``bundles`` from below ``folder`` and has schemathesis examine them.

    Raises :class:`CityBrainError` where it is not installed, or cannot be run.
    """
    store = folder / "store.sqlite"
    folders = [folder / "bundles" / bundle.task.name for bundle in bundles]
    for home, bundle in zip(folders, bundles, strict=True):
        bundle.write(home)
        fill(bundle, store, pd.Timestamp("2026-03-02 08:00", tz="UTC"))
    engine = open_engine(str(store))
    migrate(engine)
    _, key = KeyRing(engine).create("contract", Role.ADMIN)
    engine.dispose()
    # A stream has no end of its own; here each is to be seen to the end.
    settings = {"rate_per_second": 1e9, "rate_burst": 1e9, "bundle_root": folder / "bundles", "stream_seconds": 0.1}
    with service(folders, store, settings=settings) as server:
        return _examined(server.url, key, [Bundle.read(home) for home in folders], folder, examples)


def _examined(url: str, key: str, bundles: Sequence[Bundle], folder: Path, examples: int) -> Findings:
    config, report = folder / "schemathesis.toml", folder / "report.json"
    places = bundles[0].city.nodes[bundles[0].task.node][["lat", "lon"]].dropna().head(3)
    told = {
        "accepted": ACCEPTED,
        "opaque": OPAQUE,
        "opaque_accepted": ("400", *ACCEPTED),
        "tasks": [bundle.task.name for bundle in bundles],
        "versions": [bundle.version for bundle in bundles],
        "nodes": places.index.tolist(),
        "lat": places["lat"].tolist(),
        "lon": places["lon"].tolist(),
        "often": OFTEN,
    }
    config.write_text(CONFIG.format(**{name: json.dumps(value) for name, value in told.items()}))
    command = [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"]
    command += ["--config-file", str(config), "run", f"{url}/openapi.json", "--header", f"Authorization: Bearer {key}"]
    command += ["--checks", "all", "--phases", PHASES, "--max-examples", str(examples), "--seed", str(SEED)]
    command += ["--generation-database", "none", "--request-timeout", "60", "--continue-on-failure"]
    command += ["--report-json-path", str(report), "--no-color"]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if not report.exists():
        raise CityBrainError(
            f"schemathesis could not be run (pip install '.[dev]'): {(ran.stderr or ran.stdout)[-500:]}"
        )
    (folder / "schemathesis.log").write_text(ran.stdout)
    found = json.loads(report.read_text())
    return Findings(
        known=found["operations"]["total"],
        operations=found["operations"]["tested"],
        requests=found["test_cases"]["generated"],
        failures=[f"{f['title']}: {', '.join(f['operations'])}" for f in found["failures"]],
        errors=[str(e)[:200] for e in found["errors"]],
    )
