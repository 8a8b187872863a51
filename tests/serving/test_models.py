"""Bundles swapped, rolled back and tried in the shadow while the service answers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import numpy_helper

from citybrain_datasets.task import Task
from citybrain_models.bundle import Bundle
from citybrain_models.onnx_forecaster import OnnxForecaster
from citybrain_serving.errors import FleetError, NotNow, UnfitBundle
from citybrain_serving.readings import readings_from_json
from citybrain_serving.roster import ready
from citybrain_serving.safety.audit import AuditLog
from citybrain_serving.safety.keys import KeyRing
from citybrain_serving.safety.roles import Role
from citybrain_serving.service import Service
from citybrain_serving.settings import Settings
from citybrain_serving.store import Partial

ROADS = "/v1/forecasts/congestion"
END = pd.Timestamp("2026-03-17", tz="UTC")
FIVE = pd.Timedelta(minutes=5)


def spread(bundle: Bundle, around: list[float]) -> Bundle:
    """A bundle whose network puts its quantiles ``around`` its median, which are -3, 0 and 3 by default."""
    model = onnx.load_from_string(bundle.model)
    tensor = next(found for found in model.graph.initializer if found.name == "spread")
    tensor.CopyFrom(numpy_helper.from_array(np.asarray(around, np.float32), "spread"))
    model.graph.output[0].type.tensor_type.shape.dim[3].dim_value = len(around)
    return replace(bundle, model=model.SerializeToString())


def moved(bundle: Bundle, by: float) -> Bundle:
    """A bundle that forecasts ``by`` more than another."""
    return spread(bundle, [by - 3, by, by + 3])


@pytest.fixture
def store_of(tmp_path, bundles) -> dict[str, Bundle]:
    """Bundle folders below ``models``: ``a`` in use, ``b`` 1 km/h above it."""
    congestion = bundles["congestion"]
    return {n: moved(congestion, by).write(tmp_path / "models" / n) for n, by in (("a", 0.0), ("b", 1.0))}


@pytest.fixture
def running(tmp_path, store_of, bundles, rows, live) -> Iterator[tuple[Service, httpx.Client]]:
    settings = Settings(store=str(tmp_path / "s.sqlite"), clock="observations", bundle_root=tmp_path / "models")
    service = Service([store_of["a"], bundles["pm25"]], settings)
    service.take(readings_from_json(httpx.Request("POST", "http://x", json={"observations": rows(30)}).content))
    service.step()
    with live(service, lifespan="off") as base, httpx.Client(base_url=base, timeout=30) as client:
        yield service, client
    service.close()


def test_a_swap_answers_from_the_next_cycle_and_is_rolled_back(running, store_of):
    service, client = running
    before = client.get(ROADS).json()
    answer = client.post("/v1/models/congestion/swap", json={"bundle": "b"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["bundle"]["digest"] == store_of["b"].digest
    assert client.get(ROADS).json()["values"] == before["values"]  # what is published stands
    service.step(())
    after = client.get(ROADS).json()
    assert after["bundle"] == store_of["b"].version
    np.testing.assert_allclose(np.subtract(after["values"], before["values"]), 1, atol=0.011)
    assert client.get("/v2/models/congestion").json()["versions"] == [store_of["b"].version]
    listed = {row["task"]: row for row in client.get("/v1/models").json()}
    assert listed["congestion"]["previous"]["version"] == store_of["a"].version
    assert listed["pm25"]["previous"] is None
    assert client.post("/v1/models/congestion/rollback").status_code == 200
    service.step(())
    assert client.get(ROADS).json()["values"] == before["values"]
    assert client.post("/v1/models/pm25/rollback").status_code == 409


def test_what_a_new_model_does_not_tell_stops_no_cycle(running, store_of, tmp_path, city, bundle_of):
    """Answers for the whole city are prepared for who asked for them before; of a lead that there is no more, not."""
    service, client = running
    assert client.get(ROADS, params={"horizon": 30}).status_code == 200
    assert client.get(ROADS, params={"horizon": 10}).status_code == 200
    shorter = Task.model_validate({**store_of["a"].task.model_dump(), "horizon": 4})
    bundle_of(city, shorter).write(tmp_path / "models" / "short")
    assert client.post("/v1/models/congestion/swap", json={"bundle": "short"}).status_code == 200
    assert service.step(()) is not None
    assert client.get(ROADS, params={"horizon": 30}).status_code == 422
    assert client.get(ROADS, params={"horizon": 10}).status_code == 200
    assert service.history.find("congestion", END) is not None


def test_a_swap_asked_for_twice_keeps_the_way_back(running, store_of):
    _, client = running
    for _ in range(2):
        answer = client.post("/v1/models/congestion/swap", json={"bundle": "b"}).json()
        assert answer["previous"]["digest"] == store_of["a"].digest
    assert client.post("/v1/models/congestion/rollback").json()["bundle"]["digest"] == store_of["a"].digest


def test_who_swapped_what_is_in_the_audit_log(running, store_of):
    service, client = running
    client.post("/v1/models/congestion/swap", json={"bundle": "b"})
    client.post("/v1/models/congestion/rollback")
    noted = [e for _, e in AuditLog(service.store.engine).read() if e["what"] in ("swaps bundle", "rolls back")]
    a, b = store_of["a"].digest, store_of["b"].digest
    assert [(e["who"], e["bundle"], e["replaces"]) for e in noted] == [("local", b, a), ("local", a, b)]


def test_what_cannot_be_audited_is_not_swapped(running, store_of):
    service, _ = running

    def full(_new: Bundle, _old: Bundle) -> None:
        raise NotNow("the disk is full")

    with pytest.raises(NotNow):
        service.roster.swap(store_of["b"], full)
    assert service.fleet.bundles["congestion"] is store_of["a"]
    assert service.roster.previous("congestion") is None


@pytest.mark.parametrize(
    "name", ["../s.sqlite", "/etc", "a/../b", "none", "linked", "way/a", ".", "a\0", "~/b", "b/model.onnx"]
)
def test_only_plain_folders_below_the_root_are_loaded(running, tmp_path, name):
    service, client = running
    (tmp_path / "models" / "linked").symlink_to("b")
    (tmp_path / "models" / "way").symlink_to(".")
    answer = client.post("/v1/models/congestion/swap", json={"bundle": name})
    assert answer.status_code == 422, answer.text
    assert str(tmp_path) not in answer.text
    assert service.roster.previous("congestion") is None


def test_a_bundle_off_the_list_is_not_swapped_in(tmp_path, store_of, live):
    listed = tmp_path / "allowed"
    listed.write_text(store_of["a"].digest)
    root = {"bundle_root": tmp_path / "models", "bundle_digests": listed}
    service = Service([store_of["a"]], Settings(store=str(tmp_path / "s.sqlite"), clock="observations", **root))
    with live(service, lifespan="off") as base:
        swap = f"{base}/v1/models/congestion/swap"
        refused = httpx.post(swap, json={"bundle": "b"})
        assert (refused.status_code, "not on the list" in refused.text) == (422, True)
        listed.write_text(f"{store_of['a'].digest}\n{store_of['b'].digest}\n")
        assert httpx.post(swap, json={"bundle": "b"}).status_code == 200
    service.close()


def test_without_a_folder_nothing_is_loaded_and_unknown_tasks_are_named(client):
    assert client.post("/v1/models/congestion/swap", json={"bundle": "b"}).status_code == 403
    assert client.post("/v1/models/tides/swap", json={"bundle": "b"}).status_code == 404


def test_models_are_the_administrators_alone(service, live):
    ring = KeyRing(service.store.engine)
    operator, admin = ({"Authorization": f"Bearer {ring.create('k', r)[1]}"} for r in (Role.OPERATOR, Role.ADMIN))
    with live(service, lifespan="off") as base:
        assert httpx.get(f"{base}/v1/models", headers=operator).status_code == 403
        assert httpx.post(f"{base}/v1/models/congestion/rollback", headers=operator).status_code == 403
        assert httpx.get(f"{base}/v1/models", headers=admin).status_code == 200


def elsewhere(bundle: Bundle) -> Bundle:
    return replace(bundle, city=bundle.city.replace(name="elsewhere"))


def turned(bundle: Bundle) -> Bundle:
    nodes = bundle.city.nodes
    return replace(bundle, city=bundle.city.replace(nodes={**nodes, "road": nodes["road"].iloc[::-1]}))


def slower(bundle: Bundle) -> Bundle:
    return replace(bundle, task=bundle.task.model_copy(update={"step_minutes": 15}))


def impossible(bundle: Bundle) -> Bundle:
    return moved(bundle, 1_000.0)


def mute(bundle: Bundle) -> Bundle:
    """A graph that reads what no feature is called."""
    return replace(bundle, model=bundle.model.replace(b"anchor", b"rancho"))


def unfitting(bundle: Bundle) -> Bundle:
    """A network that answers another number of quantiles."""
    return spread(bundle, [-3, -2, 0, 2, 3])


@pytest.mark.parametrize("change", [elsewhere, turned, slower, impossible, mute, unfitting])
def test_a_bundle_that_does_not_fit_changes_nothing(running, bundles, change):
    service, _ = running
    held = dict(service.fleet.bundles), dict(service.cycle.forecasters)
    with pytest.raises(UnfitBundle):
        service.roster.swap(replace(change(bundles["congestion"]), digest="dd" * 32), lambda *_: None)
    assert (service.fleet.bundles, service.cycle.forecasters) == held


def test_before_any_observation_a_model_is_warmed_up_all_the_same(service, bundles):
    model = ready(service.fleet, service.cycle, service.quality, bundles["congestion"], 1)
    assert isinstance(model.forecaster, OnnxForecaster)
    with pytest.raises(UnfitBundle, match="cannot be run"):
        ready(service.fleet, service.cycle, service.quality, mute(bundles["congestion"]), 1)


def test_no_request_is_dropped_while_bundles_are_swapped(running, bundles):
    """Readers of forecasts and callers of the network, over sockets, during forty swaps with cycles between."""
    service, client = running
    features = bundles["congestion"].features()
    anchor = np.zeros((1, 6, 2 + features.task.horizon), np.float32)
    feed = {"inputs": [{"name": "anchor", "shape": anchor.shape, "datatype": "FP32", "data": anchor.ravel().tolist()}]}
    done, wrong, counts = threading.Event(), [], [0, 0, 0]

    def keep_asking(which: int) -> None:
        with httpx.Client(base_url=client.base_url, timeout=30) as mine:
            while not done.is_set():
                answer = (
                    mine.post("/v2/models/congestion/infer", json=feed)
                    if which
                    else mine.get(ROADS, params={"ids": "r1"})
                )
                counts[which] += 1
                if answer.status_code != 200:
                    wrong.append((which, answer.status_code, answer.text))

    threads = [threading.Thread(target=keep_asking, args=(which,)) for which in range(3)]
    for thread in threads:
        thread.start()
    try:
        for number in range(40):
            answer = client.post("/v1/models/congestion/swap", json={"bundle": "ba"[number % 2]})
            assert answer.status_code == 200, answer.text
            service.step(())
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert min(counts) > 0


def test_a_challenger_is_scored_under_its_own_version_and_never_answered(tmp_path, city, bundles, live):
    champion, challenger = bundles["congestion"], replace(moved(bundles["congestion"], 10.0), digest="bb" * 32)
    settings = Settings(store=str(tmp_path / "s.sqlite"), clock="observations", patience_minutes=0, learning_rate=0.1)
    service = Service([champion, bundles["pm25"]], settings, shadows=[challenger])
    speed = city.signals["speed"]

    def at(time: pd.Timestamp) -> None:
        values = speed.between(time - FIVE, time).values[0]
        service.store.merge([Partial("speed", int(time.timestamp()), np.arange(6), values)])
        service.step()

    for step in range(14 + champion.task.horizon):
        at(END - 24 * FIVE + step * FIVE)
    with live(service, lifespan="off") as base:
        answered = httpx.get(f"{base}{ROADS}").json()
        rows = httpx.get(f"{base}/v1/quality", params={"task": "congestion", "by": "bundle"}).json()["rows"]
        pooled = httpx.get(f"{base}/v1/quality", params={"task": "congestion", "by": "day"}).json()["rows"]
        history = httpx.get(f"{base}{ROADS}/history").json()
        listed = {row["task"]: row for row in httpx.get(f"{base}/v1/models").json()}
    assert answered["bundle"] == champion.version
    assert {issue["bundle"] for issue in history} == {champion.version}
    scored = {row["bundle"]: row for row in rows}
    assert scored.keys() == {champion.version, challenger.version}
    assert scored[champion.version]["count"] == scored[challenger.version]["count"] > 0
    assert scored[challenger.version]["bias"] == pytest.approx(scored[champion.version]["bias"] + 10, abs=1e-3)
    assert pooled[0]["count"] == scored[champion.version]["count"]
    assert listed["congestion"]["shadow"]["version"] == challenger.version
    learnt = service.shadows.models["congestion"].forecaster.calibration.shift
    assert np.any(learnt != challenger.calibration.shift)
    service.close()


def test_a_challenger_that_is_swapped_in_answers_what_it_only_showed_before(tmp_path, bundles, rows):
    challenger = replace(moved(bundles["congestion"], 1.0), digest="bb" * 32)
    settings = Settings(store=str(tmp_path / "s.sqlite"), clock="observations")
    service = Service(bundles.values(), settings, shadows=[challenger])
    service.take(readings_from_json(httpx.Request("POST", "http://x", json={"observations": rows(30)}).content))
    service.step()
    issued = service.snapshot.forecasts["congestion"].issued
    assert service.history.find("congestion", issued).bundle == bundles["congestion"].version
    service.roster.swap(challenger, lambda *_: None)
    service.step(())
    found = service.history.find("congestion", issued)
    assert (found.bundle, found.source) == (challenger.version, "model")
    service.close()


@pytest.mark.parametrize("change", ["same", "twice", "foreign"])
def test_a_challenger_that_cannot_be_one_is_refused(tmp_path, bundles, change):
    other = replace(bundles["congestion"], digest="bb" * 32)
    shadows = {"same": [bundles["congestion"]], "twice": [other, other], "foreign": [elsewhere(other)]}[change]
    with pytest.raises(FleetError):
        Service(bundles.values(), Settings(store=str(tmp_path / "s.sqlite"), clock="observations"), shadows=shadows)


def test_the_shadow_option_takes_folders(tmp_path: Path):
    from citybrain_serving.commands import serve

    with pytest.raises(Exception, match="no bundle folder"):
        serve([tmp_path / "none"], shadow=[tmp_path / "other"], store=str(tmp_path / "s.sqlite"))
