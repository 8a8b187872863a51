"""The networks that are loaded now, each behind its batcher."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from citybrain_models.forecaster import Forecaster
from citybrain_models.onnx_forecaster import OnnxForecaster
from citybrain_serving.inference.batching import Batcher, Limits
from citybrain_serving.inference.errors import NoSuchModel
from citybrain_serving.inference.network import Network


class InferenceMetrics:
    """Rows, requests and batches by model, and what waits."""

    def __init__(self, registry: CollectorRegistry):
        labels = ("model", "version")
        self.rows = Counter("citybrain_inference_rows", "Rows inferred", labels, registry=registry)
        self.requests = Counter("citybrain_inference_requests", "Requests inferred", labels, registry=registry)
        self.refused = Counter("citybrain_inference_refused", "Requests refused as too many", registry=registry)
        self.waiting = Gauge("citybrain_inference_rows_waiting", "Rows in the queue", ("model",), registry=registry)
        self.batch = Histogram(
            "citybrain_inference_batch_rows", "Rows of a batch", labels, registry=registry,
            buckets=(1, 2, 4, 8, 16, 32, 64, 128),
        )  # fmt: skip


@dataclass(frozen=True)
class Loaded:
    network: Network
    batcher: Batcher


class Models:
    """Follows the forecasters of a service; one that was swapped is picked up at the next request.

    ``forecasters`` gives those in use now. Baselines and test doubles among them have no network to offer.
    """

    def __init__(self, forecasters: Callable[[], Mapping[str, Forecaster]], limits: Limits, metrics: InferenceMetrics):
        self.forecasters = forecasters
        self.limits = limits
        self.metrics = metrics
        self._loaded: dict[str, tuple[Forecaster, Loaded]] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def names(self) -> list[str]:
        return [name for name, found in self.forecasters().items() if isinstance(found, OnnxForecaster)]

    def get(self, name: str, version: str | None = None) -> Loaded:
        """Raises :class:`NoSuchModel` naming what is loaded."""
        forecaster = self.forecasters().get(name)
        if not isinstance(forecaster, OnnxForecaster):
            loaded_names = ", ".join(self.names()) or "none"
            raise NoSuchModel(f"there is no model {name[:80]!r}; loaded are {loaded_names}")
        held = self._loaded.get(name)
        if held is None or held[0] is not forecaster:
            if held is not None:
                self._retire(held[1].batcher)
            held = self._loaded[name] = (forecaster, self._load(forecaster))
        loaded = held[1]
        if version is not None and version != loaded.network.version:
            raise NoSuchModel(f"model {name} has no version {version[:80]!r}; {loaded.network.version} is loaded")
        return loaded

    async def close(self) -> None:
        """Finishes what waits."""
        for _, loaded in self._loaded.values():
            await loaded.batcher.close()
        await asyncio.gather(*self._closing)

    def _load(self, forecaster: OnnxForecaster) -> Loaded:
        network, metrics = Network(forecaster), self.metrics
        labels = (network.name, network.version)
        requests_run, rows_run = metrics.requests.labels(*labels), metrics.rows.labels(*labels)
        batches = metrics.batch.labels(*labels)

        def ran(requests: int, rows: int) -> None:
            requests_run.inc(requests)
            rows_run.inc(rows)
            batches.observe(rows)

        batcher = Batcher(network, self.limits, ran)
        metrics.waiting.labels(network.name).set_function(lambda: batcher.queued_rows)
        return Loaded(network, batcher)

    def _retire(self, batcher: Batcher) -> None:
        """Lets requests that already wait for the old network finish."""
        task = asyncio.get_running_loop().create_task(batcher.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
