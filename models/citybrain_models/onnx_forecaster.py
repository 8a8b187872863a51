"""A Bundle's network, run by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnxruntime

from citybrain_datasets.features import Features, Window
from citybrain_datasets.task import Task
from citybrain_models.bundle import Bundle, BundleError
from citybrain_models.calibration import Calibration, parts_of_day


def open_session(model: bytes, threads: int = 1) -> onnxruntime.InferenceSession:
    """An inference session on the CPU with a set number of threads, from bytes: no path, so no file is followed.

    Raises :class:`BundleError` for bytes that ONNX Runtime will not run.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = max(1, threads)
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001  # the errors of ONNX Runtime share no class of their own
        raise BundleError(f"model.onnx: ONNX Runtime will not run it: {error}") from None


class OnnxForecaster:
    """Forecasts from windows: features, network, calibration.

    ``forecast`` answers calibrated quantiles, ``raw`` those of the network. ``calibration`` is the bundle's until it
    is replaced by one that has learnt from outcomes.
    """

    def __init__(self, bundle: Bundle, threads: int = 1):
        self.bundle = bundle
        self.features: Features = bundle.features()
        self.calibration: Calibration = bundle.calibration
        self.session = open_session(bundle.model, threads)
        self.inputs = [node.name for node in self.session.get_inputs()]
        unknown = [n for n in bundle.graph if n not in self.inputs]
        if unknown:
            raise BundleError(f"model.onnx does not read {', '.join(unknown)}, which graph.npz holds")

    @property
    def task(self) -> Task:
        return self.bundle.task

    def raw(self, window: Window) -> np.ndarray:
        """Uncalibrated quantiles float32 ``[batch, node, horizon, quantile]``."""
        return self.run(self.features(window))

    def run(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """The network alone, on feature arrays; the bundle's graph is added."""
        feed = {name: self.bundle.graph[name] if name in self.bundle.graph else arrays[name] for name in self.inputs}
        return self.session.run(None, feed)[0]

    def forecast(self, window: Window) -> np.ndarray:
        part = parts_of_day(self.task, self.features.calendar, window.issue)
        return self.calibration.apply(self.raw(window), part)
