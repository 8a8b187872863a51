"""MQTT in, against a real broker where this machine has one."""

from __future__ import annotations

import getpass
import queue
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator

import orjson
import pandas as pd
import pytest

from citybrain_datasets.errors import ConfigError
from citybrain_serving.errors import StoreUnavailable
from citybrain_serving.service import Service
from citybrain_serving.settings import Settings
from citybrain_serving.standards import mqtt as subject

paho = pytest.importorskip("paho.mqtt.client", reason="needs the extra mqtt")
from paho.mqtt.enums import CallbackAPIVersion  # noqa: E402  after the skip where paho is absent

LAST = "2026-03-16T00:00:00Z"
MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
WITH_BROKER = pytest.mark.skipif(MOSQUITTO is None, reason="there is no MQTT broker (mosquitto) on this machine")


@pytest.fixture
def broker(tmp_path) -> Iterator[int]:
    """A mosquitto on a free port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = tmp_path / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nuser {getpass.getuser()}\n")
    assert MOSQUITTO is not None
    process = subprocess.Popen([MOSQUITTO, "-c", str(config)], stderr=subprocess.DEVNULL)
    try:
        yield port
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def subscribed(broker, tmp_path, bundles):
    """A subscription, its service, a client that publishes, and what is told on ``refused``."""
    settings = Settings(
        store=str(tmp_path / "s.sqlite"),
        clock="observations",
        mqtt_url=f"mqtt://127.0.0.1:{broker}",
        max_body_bytes=4096,
    )
    service = Service(bundles.values(), settings)
    subscription = subject.Subscription(service)
    ready: queue.Queue[None] = queue.Queue()
    subscription.client.on_subscribe = lambda *_: ready.put(None)
    client, refused = paho.Client(CallbackAPIVersion.VERSION2), queue.Queue()
    client.on_message = lambda _client, _data, message: refused.put(orjson.loads(message.payload))
    client.on_subscribe = lambda *_: ready.put(None)
    connect(client, broker)
    client.subscribe("citybrain/refused")
    subscription.start()
    for _ in range(2):
        ready.get(timeout=20)
    yield subscription, service, client, refused
    client.disconnect()
    client.loop_stop()
    subscription.stop()
    service.close()


def connect(client, port: int) -> None:
    """Connects as soon as the broker listens."""
    end = time.monotonic() + 20
    while True:
        try:
            client.connect("127.0.0.1", port)
        except ConnectionRefusedError:
            assert time.monotonic() < end, "the broker did not start"
        else:
            client.loop_start()
            return


def reading(**changes) -> dict:
    return {"id": "r1", "signal": "speed", "time": LAST, "value": 42.5, **changes}


def send(client, topic: str, body: bytes) -> None:
    client.publish(f"citybrain/{topic}", body, qos=1).wait_for_publish(20)


def stored(service) -> float:
    return float(service.store.read("speed", pd.Timestamp(LAST), pd.Timestamp(LAST)).values[0, 1])


def counted(service, outcome: str) -> float:
    return service.telemetry.registry.get_sample_value("citybrain_mqtt_messages_total", {"outcome": outcome}) or 0


@WITH_BROKER
def test_messages_are_taken_in_every_format_and_refusals_told(subscribed):
    subscription, service, client, refused = subscribed
    send(client, "observations", orjson.dumps({"observations": [reading(), reading(id="r99")]}))
    told = refused.get(timeout=20)
    assert told["refused_by_reason"] == {"unknown_sensor": 1}
    assert told["refusals"][0]["detail"].startswith("row 1: ")
    assert stored(service) == 42.5
    entity = {"type": "TrafficFlowObserved", "dateObserved": LAST, "averageVehicleSpeed": 42.5}
    send(client, "ngsi-ld", orjson.dumps([{"id": "r1", **entity}, {"id": "r98", **entity}]))
    assert refused.get(timeout=20)["repeated"] == 1
    send(client, "ngsi-ld", orjson.dumps([{"id": "r1", **entity, "laneSpeed": 40}]))
    assert refused.get(timeout=20)["ignored"] == {"attribute laneSpeed of TrafficFlowObserved is not read here": 1}
    for topic, body in (("datex2", b"<a/>"), ("arrow", b"no"), ("observations", bytes(5000))):
        send(client, topic, body)
        assert refused.get(timeout=20)["topic"] == f"citybrain/{topic}"
    assert service.telemetry.registry.get_sample_value("citybrain_mqtt_connected") == 1
    subscription.stop()
    assert counted(service, "malformed") == 3
    assert counted(service, "taken") == 3


@WITH_BROKER
def test_a_message_that_cannot_be_stored_is_not_lost(subscribed, monkeypatch):
    """The service stops while its store is full; started again, it is given the message once more."""
    subscription, service, client, refused = subscribed
    tried: queue.Queue[None] = queue.Queue()

    def full(_readings):
        tried.put(None)
        raise StoreUnavailable("full")

    monkeypatch.setattr(service, "take", full)
    send(client, "observations", orjson.dumps({"observations": [reading(), reading(id="r99")]}))
    tried.get(timeout=20)
    subscription.stop()
    assert refused.empty()
    monkeypatch.undo()
    again = Service(service.fleet.bundles.values(), service.settings)
    second = subject.Subscription(again)
    second.start()
    try:
        assert refused.get(timeout=20)["accepted"] == 1
        assert stored(again) == 42.5
    finally:
        second.stop()
        again.close()


@pytest.mark.parametrize(
    "url", ["http://broker", "mqtt://", "broker:1883", "mqtt://user:secret@broker", "mqtt://broker/topic"]
)
def test_addresses_that_cannot_be_used_are_refused(url):
    with pytest.raises(ConfigError, match="mqtt_url"):
        subject.broker_address(url)


def test_a_password_file_that_cannot_be_read_is_refused(tmp_path, bundles):
    settings = Settings(
        store=str(tmp_path / "s.sqlite"), mqtt_url="mqtts://gate@broker", mqtt_password_file=tmp_path / "none"
    )
    service = Service(bundles.values(), settings)
    with pytest.raises(ConfigError, match="mqtt_password_file"):
        subject.Subscription(service)
    service.close()


@WITH_BROKER
def test_the_session_goes_to_the_replica_that_computes(subscribed, monkeypatch):
    """What comes while the lead changes hands is neither lost nor taken twice."""
    subscription, service, client, refused = subscribed
    ended: queue.Queue[None] = queue.Queue()
    gone = subscription.client.on_disconnect
    subscription.client.on_disconnect = lambda *given: (gone(*given), ended.put(None))
    monkeypatch.setattr(service.leadership, "leads", False)
    ended.get(timeout=20)
    assert service.telemetry.registry.get_sample_value("citybrain_mqtt_connected") == 0
    send(client, "observations", orjson.dumps({"observations": [reading(), reading(id="r99")]}))
    assert refused.empty()
    monkeypatch.undo()
    assert refused.get(timeout=20)["accepted"] == 1
    assert stored(service) == 42.5
