"""Other people's servers of the same network, for comparison alone: MLflow's scoring server and LitServe.

Each runs as its own process and, where its packages do not stand beside ours, with an interpreter of its own, named by
``CITYBRAIN_BENCH_MLFLOW`` or ``CITYBRAIN_BENCH_LITSERVE``. One that is nowhere is left out.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson

from citybrain_models.bundle import Bundle
from citybrain_serving.bench.processes import Server, free_port, running

Feed = Mapping[str, np.ndarray]

SAVE_MLFLOW = """
import sys, mlflow.onnx, numpy as np, onnx
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec
model = onnx.load(sys.argv[1])
specs = [
    TensorSpec(np.dtype(np.float32), (-1, *(d.dim_value or -1 for d in i.type.tensor_type.shape.dim[1:])), i.name)
    for i in model.graph.input
]
options = {"intra_op_num_threads": 1, "inter_op_num_threads": 1}
signature = ModelSignature(Schema(specs))
mlflow.onnx.save_model(
    model, sys.argv[2], signature=signature, onnx_session_options=options, pip_requirements=[],
    save_as_external_data=False,
)
"""

SERVE_LITSERVE = """
import sys, litserve, numpy as np, onnxruntime

class Network(litserve.LitAPI):
    def setup(self, device):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(sys.argv[1], options)

    def decode_request(self, request):
        return {name: np.asarray(value, np.float32) for name, value in request.items()}

    def batch(self, inputs):
        return {name: np.concatenate([one[name] for one in inputs]) for name in inputs[0]}

    def predict(self, feed):
        return self.session.run(None, feed)[0]

    def unbatch(self, output):
        return list(output)

    def encode_response(self, output):
        return {"output": output.tolist()}

if __name__ == "__main__":
    api = Network(max_batch_size=32, batch_timeout=0.002)
    litserve.LitServer(api, accelerator="cpu", workers_per_device=1).run(
        port=int(sys.argv[2]), host="127.0.0.1", generate_client_file=False, log_level="warning"
    )
"""


@dataclass(frozen=True)
class Peer:
    """``running(model, feed, folder)`` serves an ONNX model; requests are ``body(feed)`` sent to ``path``."""

    name: str
    path: str
    body: Callable[[Feed], bytes]
    running: Callable[[bytes, Feed, Path], AbstractContextManager[Server]]


def peers_here() -> list[Peer]:
    """Those that an interpreter can import."""
    peers = [
        ("mlflow", Peer("MLflow scoring server", "/invocations", _mlflow_body, _mlflow)),
        ("litserve", Peer("LitServe, batches of 32", "/predict", _litserve_body, _litserve)),
    ]
    return [peer for package, peer in peers if _imports(package)]


def with_graph_inside(bundle: Bundle) -> bytes:
    """The network with the city's graph as constants: other servers take no fixed inputs. It can only help them."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load_from_string(bundle.model)
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in bundle.graph.items())
    read = [node for node in model.graph.input if node.name not in bundle.graph]
    del model.graph.input[:]
    model.graph.input.extend(read)
    return model.SerializeToString()


def _mlflow_body(feed: Feed) -> bytes:
    return orjson.dumps({"inputs": dict(feed)}, option=orjson.OPT_SERIALIZE_NUMPY)


def _litserve_body(feed: Feed) -> bytes:
    return orjson.dumps(dict(feed), option=orjson.OPT_SERIALIZE_NUMPY)


def _mlflow(model: bytes, feed: Feed, folder: Path) -> AbstractContextManager[Server]:
    python, port = _interpreter("mlflow"), free_port()
    (folder / "peer.onnx").write_bytes(model)
    save = [python, "-c", SAVE_MLFLOW, str(folder / "peer.onnx"), str(folder / "mlflow")]
    subprocess.run(save, check=True, capture_output=True)
    command = [python, "-m", "mlflow", "models", "serve", "-m", str(folder / "mlflow"), "--env-manager", "local"]
    return running(
        [*command, "-h", "127.0.0.1", "-p", str(port)], port, folder / "mlflow.log", ready="/ping",
        environment={"PATH": f"{Path(python).parent}{os.pathsep}{os.environ['PATH']}"},
    )  # fmt: skip


def _litserve(model: bytes, feed: Feed, folder: Path) -> AbstractContextManager[Server]:
    python, port = _interpreter("litserve"), free_port()
    (folder / "peer.onnx").write_bytes(model)
    script = folder / "litserve_server.py"  # a file: LitServe starts its workers by importing it again
    script.write_text(SERVE_LITSERVE)
    command = [python, str(script), str(folder / "peer.onnx"), str(port)]
    return running(command, port, folder / "litserve.log", ready="/health")


def _interpreter(package: str) -> str:
    return os.environ.get(f"CITYBRAIN_BENCH_{package.upper()}", sys.executable)


def _imports(package: str) -> bool:
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({package!r}) is None)"
    return subprocess.run([_interpreter(package), "-c", code]).returncode == 0
