"""``citybrain demo``: the whole path once, on the embedded city, ending with a live service."""

from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
import pandas as pd
import pyarrow as pa
import typer
from rich.console import Console
from rich.progress import Progress

from citybrain_datasets.calendar import Calendar
from citybrain_datasets.city import City
from citybrain_datasets.errors import CityBrainError
from citybrain_datasets.signals import KINDS, NodeType
from citybrain_models.bundle import Bundle, BundleError
from citybrain_training.commands import followed, load_config, print_scores

ARROW = "application/vnd.apache.arrow.stream"
TASKS = ("congestion", "pm25")
REPLAYED = pd.Timedelta(days=1)

console = Console()


def demo(
    city: Annotated[str, typer.Option(help="a saved city, or the embedded synthetic one")] = "embedded",
    folder: Annotated[Path, typer.Option(help="where runs, bundles and observations go")] = Path("runs/demo"),
    port: Annotated[int, typer.Option(help="port of the service on 127.0.0.1")] = 8000,
    serve: Annotated[bool, typer.Option(help="leave the service running at the end")] = True,
) -> None:
    """Train on the embedded city, compare, register, export, serve, replay a day, and stay to answer."""
    _refuse_taken(port)
    loaded = City.load(city)
    console.rule(f"[bold]{loaded.title or loaded.name}" + (" — synthetic" if loaded.synthetic else ""))
    console.print(", ".join(f"{len(loaded.ids(node))} {node} nodes" for node in loaded.nodes))
    bundles = [_trained(loaded, task, folder) for task in TASKS]
    store = folder / "observations.sqlite"
    for leftover in folder.glob("observations.sqlite*"):
        leftover.unlink()
    with _service(bundles, store, port) as (process, client):
        _replay(loaded, [Bundle.read(bundle) for bundle in bundles], client)
        _tell(loaded, client)
        _draw(loaded, client, folder / "city.png")
        console.print(
            f"\nThe service answers on [bold]http://127.0.0.1:{port}[/bold]: try /docs, /v1/city, "
            "/v1/forecasts/congestion, /v1/forecasts/pm25, /metrics."
        )
        if serve:
            console.print("Ctrl-C stops it.")
            process.wait()


def _trained(city: City, task: str, folder: Path) -> Path:
    """The bundle of a task, trained now unless an earlier demo left one for the same data and configuration."""
    config = load_config(f"demo-{task}")
    run, stamp = folder / task, folder / task / "trained.json"
    signature = {"data": city.fingerprint(), "config": config.model_dump(mode="json")}
    try:
        bundle = Bundle.read(run / "bundle")
        if json.loads(stamp.read_text()) == {**signature, "bundle": bundle.digest}:
            console.print(f"{task}: trained before, bundle {bundle.version}")
            print_scores(bundle.task, bundle.metrics["test"])
            return run / "bundle"
    except (BundleError, OSError, ValueError):
        pass  # none, damaged or half-trained: train

    from citybrain_training.pipeline import OURS, train

    console.print(f"\n[bold]{task}[/bold]: training …")
    outcome = train(city, task, config, run, home=folder / "mlflow", resume=False, progress=followed(console))
    print_scores(outcome.bundle.task, outcome.tables)
    ours, *others = (outcome.tables[name]["mean"]["mae"] for name in (OURS, "persistence", "weekly profile"))
    for name, other in zip(("persistence", "the weekly profile"), others, strict=True):
        verdict = "below" if ours < other else "NOT below"
        console.print(f"  mean error {ours:.2f} is {verdict} that of {name}, {other:.2f} ({ours / other - 1:+.0%})")
    if outcome.registered:
        console.print("  registered as {} version {}, alias {}".format(*outcome.registered))
    stamp.write_text(json.dumps({**signature, "bundle": outcome.bundle.digest}))
    return outcome.folder


@contextmanager
def _service(bundles: list[Path], store: Path, port: int) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    """A real ``citybrain serve`` in a process of its own, stopped in order at the end, whatever happens."""
    command = [sys.executable, "-m", "citybrain_datasets.main", "serve", *map(str, bundles)]
    command += ["--port", str(port), "--store", str(store), "--replay"]
    log = store.with_name("service.log")
    with open(log, "wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            _until(lambda: client.get("/livez").status_code == 200, process, log)
            yield process, client
    except KeyboardInterrupt:
        console.print("stopping …")
    finally:
        process.terminate()
        process.wait(timeout=30)


def _until(holds: Any, process: subprocess.Popen[bytes], log: Path, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise CityBrainError(f"the service stopped with code {process.returncode}; its words are in {log}")
        try:
            if holds():
                return
        except httpx.TransportError:
            pass  # not listening yet
        time.sleep(0.2)
    raise CityBrainError(f"the service did not answer within {seconds:.0f} s; its words are in {log}")


def _replay(city: City, bundles: list[Bundle], client: httpx.Client) -> None:
    """Sends what the forecasts look back on, then the day before the last evening rush, as a live feed would."""
    names = list(dict.fromkeys(name for bundle in bundles for name in bundle.features().signals))
    end = _last_rush(city, min(city.signals[name].end for name in names))
    live = end - REPLAYED
    back = {
        name: max(
            b.task.lookback * b.task.step for b in bundles if name == b.task.target or name in b.features().signals
        )
        for name in names
    }
    with Progress(console=console) as progress:
        bar = progress.add_task("history", total=len(names))
        for name in names:
            # A day at a time keeps each body well under the service's limit.
            first = live - back[name]
            while first < live:
                last = min(first + pd.Timedelta(days=1), live)
                _send(city, [name], first, last, client)
                first = last
            progress.advance(bar)
        ticks = pd.date_range(live, end, freq="1h")
        bar = progress.add_task("a day, hour by hour", total=len(ticks) - 1)
        for first, last in itertools.pairwise(ticks):
            _send(city, names, first, last, client)
            progress.advance(bar)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        issued = [client.get(f"/v1/forecasts/{b.task.name}").json().get("issued") for b in bundles]
        if all(i is not None and pd.Timestamp(i) > end - b.task.step for i, b in zip(issued, bundles, strict=True)):
            return
        time.sleep(0.2)
    raise CityBrainError(
        f"the forecasts did not catch up with the replay within a minute; issued {issued}, replayed to {end}"
    )


def _last_rush(city: City, end: pd.Timestamp) -> pd.Timestamp:
    """The last 18:00 of a working day, local time, when a city has most to tell; ``end`` where there is none."""
    ticks = pd.date_range(end - pd.Timedelta(days=14), end, freq="1h").floor("1h")
    local = Calendar(city.timezone, city.country).of(ticks)
    rush = ticks[(local.minute_of_day == 18 * 60) & (local.weekday < 5) & ~local.holiday]
    return rush[-1] if len(rush) else end


def _send(city: City, names: list[str], after: pd.Timestamp, until: pd.Timestamp, client: httpx.Client) -> None:
    """Posts the measured values of ``after`` < time ≤ ``until`` as one Arrow stream."""
    frames = []
    for name in names:
        part = city.signals[name].between(after + pd.Timedelta(seconds=1), until)
        frame = pd.DataFrame(part.values, index=part.times, columns=city.ids(part.node))
        long = frame.rename_axis("time").reset_index().melt("time", var_name="id", value_name="value").dropna()
        frames.append(long.assign(signal=name))
    table = pa.Table.from_pandas(pd.concat(frames)[["id", "signal", "time", "value"]], preserve_index=False)
    if not table.num_rows:
        return
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    answer = client.post("/v1/observations", content=sink.getvalue().to_pybytes(), headers={"content-type": ARROW})
    if answer.status_code != 200:
        raise CityBrainError(f"the service refused the replay: {answer.status_code} {answer.text[:500]}")


def _tell(city: City, client: httpx.Client) -> None:
    """One road and one station in words: the ones with the most to tell."""
    console.print()
    for task in TASKS:
        answer = client.get(f"/v1/forecasts/{task}").json()
        kind, levels = KINDS[answer["signal"]], answer["quantiles"]
        middle = levels.index(0.5)
        leads = len(answer["times"])
        shown = sorted({0, leads // 2, leads - 1})
        change = [abs(rows[-1][middle] - rows[0][middle]) for rows in answer["values"]]
        row = max(range(len(change)), key=change.__getitem__)
        node: NodeType = "road" if task == "congestion" else "air"
        name = city.nodes[node].loc[answer["ids"][row], "name"] or answer["ids"][row]
        zone = city.timezone
        issued = pd.Timestamp(answer["issued"]).tz_convert(zone)
        console.print(f"[bold]{name}[/bold] ({answer['ids'][row]}), {kind.title}, as seen at {issued:%a %H:%M}:")
        observed = answer["observed"][row]
        if observed is not None:
            console.print(f"  measured {observed:.0f} {kind.unit}")
        for lead in shown:
            low, mid, high = (answer["values"][row][lead][i] for i in (0, middle, -1))
            at = pd.Timestamp(answer["times"][lead]).tz_convert(zone)
            console.print(
                f"  {at:%a %H:%M}: {mid:.0f} {kind.unit}, between {low:.0f} and {high:.0f} "
                f"with {levels[-1] - levels[0]:.0%} probability"
            )


def _draw(city: City, client: httpx.Client, path: Path) -> None:
    """A map of the newest forecasts: speed half an hour ahead, PM2.5 in the same hours."""
    from citybrain_training.figures import city_now

    medians = {}
    for task, lead in (("congestion", 5), ("pm25", 0)):
        answer = client.get(f"/v1/forecasts/{task}").json()
        middle = answer["quantiles"].index(0.5)
        medians[task] = {i: row[lead][middle] for i, row in zip(answer["ids"], answer["values"], strict=True)}
        if task == "congestion":
            at = pd.Timestamp(answer["times"][lead]).tz_convert(city.timezone)
    title = f"{city.name}{' (synthetic)' * city.synthetic}: forecast for {at:%a %d %b %H:%M}"
    city_now(city, medians["congestion"], medians["pm25"], title).savefig(path, dpi=100)
    console.print(f"\nA map of it: {path}")


def _refuse_taken(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise CityBrainError(
                f"port {port} of 127.0.0.1 is taken; stop what listens there or choose another with --port"
            ) from None
