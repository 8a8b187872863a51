"""MQTT in: a message is acknowledged when its readings are on disk, and not before.

The client is paho's own, in a thread: it alone lets a message be acknowledged by hand. A message that cannot be
stored now is tried again until it can; one that comes twice, as MQTT allows, finds its readings there already. What
can never be stored, and what is not read here, is acknowledged and told on ``<topic>/refused``, so that it does not
stand in the way.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

import orjson
import structlog
from fastapi import APIRouter
from prometheus_client import Counter, Gauge

from citybrain_datasets.errors import CityBrainError, ConfigError, installing
from citybrain_serving.errors import BodyTooLarge, NothingAccepted, ServingError, StoreRefused, StoreUnavailable
from citybrain_serving.fleet import Channel
from citybrain_serving.lanes.combining import LaneCount
from citybrain_serving.readings import READERS
from citybrain_serving.service import Service
from citybrain_serving.standards.ingesting import Reader, datex_reader, ingested
from citybrain_serving.standards.ngsi_in import readings_from_ngsi
from citybrain_serving.standards.translation import Translated

if TYPE_CHECKING:
    from paho.mqtt.client import Client, MQTTMessage

WAITS = (0.5, 1.0, 2.0, 5.0, 10.0)
"""Seconds between tries to store a message; the last is repeated."""

LOOK_EVERY_S = 1.0
"""How often it looks which replica computes."""

REFUSALS_TOLD = 100

log = structlog.get_logger(__name__)


def _plain(media: str) -> Reader:
    def read(body: bytes, _channels: Mapping[str, Channel], most: int, _count: LaneCount) -> Translated:
        readings = READERS[media](body, most)
        return Translated(readings, [f"row {row}" for row in range(len(readings))], {})

    return read


TOPICS: dict[str, Callable[[Service], Reader]] = {
    "observations": lambda _: _plain("application/json"),
    "arrow": lambda _: _plain("application/vnd.apache.arrow.stream"),
    "ngsi-ld": lambda _: readings_from_ngsi,
    "datex2": datex_reader,
}
"""What is subscribed under the topic of the settings, and in which format it comes."""


def router(service: Service) -> APIRouter:
    """No routes, only a subscription that lives as long as the application, where ``mqtt_url`` is set."""
    if not service.settings.mqtt_url:
        return APIRouter()
    subscription = Subscription(service)

    @asynccontextmanager
    async def lifespan(_app: Any) -> AsyncIterator[None]:
        subscription.start()
        try:
            yield
        finally:
            subscription.stop()

    return APIRouter(lifespan=lifespan)


class Subscription:
    """One connection to a broker. It reconnects by itself and keeps its session, so that nothing is missed.

    Of several replicas the one that computes is connected; the session, with all that was not acknowledged, goes over
    to the next one, for they share its name.
    """

    def __init__(self, service: Service):
        """Raises :class:`ConfigError` for an address or a password file that cannot be used."""
        settings = service.settings
        self.service = service
        self.prefix = settings.mqtt_topic.strip("/")
        self.address = broker_address(settings.mqtt_url)
        self.client = _client(self.address, settings.mqtt_password_file, f"citybrain-{service.fleet.city.name}")
        self.client.on_connect = self._connected
        self.client.on_disconnect = self._disconnected
        self.client.on_message = self._message
        registry = service.telemetry.registry
        self.messages = Counter(
            "citybrain_mqtt_messages", "MQTT messages by what became of them", ("outcome",), registry=registry
        )
        self.connection = Gauge("citybrain_mqtt_connected", "1 while connected to the broker", registry=registry)
        self._stopping = threading.Event()
        self._away = threading.Event()
        self._away.set()
        self._thread = threading.Thread(target=self._follow, name="mqtt", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends after the message in work; what was not acknowledged comes again next time."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _follow(self) -> None:
        while not self._stopping.is_set():
            leads = self.service.leadership.leads
            if leads and self._away.is_set():
                self._join()
            elif not leads and not self._away.is_set():
                self._leave()
            self._stopping.wait(LOOK_EVERY_S)
        if not self._away.is_set():
            self._leave()

    def _join(self) -> None:
        self._away.clear()
        port = self.address.port or (8883 if self.address.scheme == "mqtts" else 1883)
        self.client.connect_async(str(self.address.hostname), port, keepalive=60)
        self.client.loop_start()

    def _leave(self) -> None:
        self._away.set()
        self.client.disconnect()
        self.client.loop_stop()

    def _connected(self, client: Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            log.warning("the MQTT broker refused the connection", reason=str(reason))
            return
        self.connection.set(1)
        client.subscribe([(f"{self.prefix}/{name}", 1) for name in TOPICS])
        log.info("connected to the MQTT broker", host=self.address.hostname)

    def _disconnected(self, _client: Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        self.connection.set(0)
        if not self._away.is_set():
            log.warning("the MQTT broker is gone; connecting again", reason=str(reason))

    def _message(self, client: Client, _data: Any, message: MQTTMessage) -> None:
        outcome = self._stored(message.topic, bytes(message.payload))
        if outcome is None:
            return  # leaving, and not stored: not acknowledged either
        self.messages.labels(outcome).inc()
        client.ack(message.mid, message.qos)

    def _stored(self, topic: str, body: bytes) -> str | None:
        """Tries until it is stored or can never be; the outcome, None where it leaves before."""
        tries = 0
        while True:
            try:
                self._take(topic, body)
            except StoreRefused as error:
                self._tell(topic, {"error": str(error)})
                return "failed"
            except StoreUnavailable:
                log.warning("a message waits for the store", topic=topic, tries=tries + 1)
                if self._away.wait(WAITS[min(tries, len(WAITS) - 1)]):
                    return None
                tries += 1
            except CityBrainError as error:
                self._tell(topic, {"error": str(error), **(error.extra if isinstance(error, ServingError) else {})})
                return "nothing_accepted" if isinstance(error, NothingAccepted) else "malformed"
            except Exception:
                log.exception("a message failed", topic=topic)
                self._tell(topic, {"error": "an internal error; it was logged"})
                return "failed"
            else:
                return "taken"

    def _take(self, topic: str, body: bytes) -> None:
        most = self.service.settings.max_body_bytes
        if len(body) > most:
            raise BodyTooLarge(f"the message has {len(body)} bytes; at most {most} are read")
        document = ingested(self.service, body, TOPICS[topic.rpartition("/")[2]](self.service))
        if document["refused"] or document["ignored"]:
            self._tell(topic, document)

    def _tell(self, topic: str, document: dict[str, Any]) -> None:
        told = {"topic": topic, **document, "refusals": document.get("refusals", [])[:REFUSALS_TOLD]}
        self.client.publish(f"{self.prefix}/refused", orjson.dumps(told), qos=0)


def broker_address(url: str) -> SplitResult:
    """Raises :class:`ConfigError` unless it reads ``mqtt[s]://[user@]host[:port]``."""
    address = urlsplit(url)
    if address.scheme not in ("mqtt", "mqtts") or not address.hostname or address.password or address.path.strip("/"):
        raise ConfigError("setting mqtt_url: must read mqtt[s]://[user@]host[:port]; a password goes into a file")
    return address


def _client(address: SplitResult, password: Path | None, name: str) -> Client:
    try:
        from paho.mqtt.client import Client, MQTTv311
        from paho.mqtt.enums import CallbackAPIVersion
    except ModuleNotFoundError:
        raise ConfigError(f"setting mqtt_url: needs {installing('mqtt')}") from None
    client = Client(
        CallbackAPIVersion.VERSION2, client_id=name, clean_session=False, protocol=MQTTv311, manual_ack=True
    )
    client.reconnect_delay_set(1, 30)
    if address.scheme == "mqtts":
        client.tls_set()
    if address.username:
        try:
            secret = None if password is None else password.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"setting mqtt_password_file: {password} cannot be read ({error})") from None
        client.username_pw_set(address.username, secret)
    return client
