"""The Open Inference Protocol, spoken by a real client to a real server."""

import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace

import httpx
import numpy as np
import onnx
import pytest
from fastapi.testclient import TestClient
from onnx import TensorProto, helper

from citybrain_datasets.errors import ConfigError
from citybrain_models.onnx_forecaster import OnnxForecaster
from citybrain_serving.app import create_app
from citybrain_serving.inference.network import Network, unmeasured
from citybrain_serving.service import Service
from citybrain_serving.settings import Settings, load_settings

INFER = "/v2/models/congestion/infer"

triton = pytest.importorskip("tritonclient.http", reason="the client of the protocol is not installed")


@pytest.fixture(scope="module")
def graphed(bundles):
    """The congestion bundle with a graph: its network adds the bias that ``static_road`` gives each node."""
    bundle = bundles["congestion"]
    model = onnx.load_model_from_string(bundle.model)
    model.graph.node[-1].output[0] = "bare"
    model.graph.node.append(helper.make_node("Add", ["bare", "static_road"], ["quantiles"]))
    model.graph.input.append(helper.make_tensor_value_info("static_road", TensorProto.FLOAT, ["node", 1, 1]))
    bias = np.linspace(0, 5, 6, dtype=np.float32).reshape(6, 1, 1)
    return replace(bundle, model=model.SerializeToString(), graph={"static_road": bias})


@pytest.fixture(scope="module")
def feed(graphed):
    """Three windows' features."""
    features = graphed.features()
    made = features(unmeasured(features, graphed))
    rng = np.random.default_rng(3)
    return {"anchor": rng.normal(size=(3, *made["anchor"].shape[1:])).astype(np.float32)}


@pytest.fixture(scope="module")
def client(tmp_path_factory, graphed):
    settings = Settings(store=str(tmp_path_factory.mktemp("v2") / "s.sqlite"), clock="observations", infer_rows=8)
    with TestClient(create_app(Service([graphed], settings))) as made:
        yield made


@pytest.fixture
def address(live, graphed, tmp_path):
    service = Service([graphed], Settings(store=str(tmp_path / "s.sqlite"), clock="observations"))
    with live(service) as base:
        yield base.removeprefix("http://")


def expected(bundle, feed):
    return OnnxForecaster(bundle).run(feed)


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])
@pytest.mark.parametrize("coding", [None, "gzip", "deflate"])
def test_tritonclient_speaks_to_it_unchanged(address, graphed, feed, binary_in, binary_out, coding):
    with triton.InferenceServerClient(address) as client:
        tensor = triton.InferInput("anchor", list(feed["anchor"].shape), "FP32")
        tensor.set_data_from_numpy(feed["anchor"], binary_data=binary_in)
        outputs = None if binary_out is None else [triton.InferRequestedOutput("quantiles", binary_data=binary_out)]
        result = client.infer(
            "congestion", [tensor], outputs=outputs, request_id="q1", request_compression_algorithm=coding
        )
        np.testing.assert_allclose(result.as_numpy("quantiles"), expected(graphed, feed), rtol=1e-6)
        assert result.get_response()["id"] == "q1"
        assert result.get_response()["model_version"] == graphed.version


def test_tritonclient_asks_how_things_are(address, graphed, feed):
    with triton.InferenceServerClient(address) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("congestion")
        assert client.is_model_ready("congestion", graphed.version)
        assert not client.is_model_ready("pm25")
        assert not client.is_model_ready("congestion", "2")
        assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
        about = client.get_model_metadata("congestion")
        assert about["inputs"] == [{"name": "anchor", "datatype": "FP32", "shape": [-1, *feed["anchor"].shape[1:]]}]
        assert about["outputs"] == [{"name": "quantiles", "datatype": "FP32", "shape": [-1, 6, 6, 3]}]
        assert about["parameters"]["optional_inputs"][0]["name"] == "static_road"
        with pytest.raises(triton.InferenceServerException, match="no model 'nothing'"):
            client.get_model_metadata("nothing")


def test_many_callers_at_once_get_their_own_answers(address, graphed, feed):
    with triton.InferenceServerClient(address, concurrency=16) as client:
        requests = []
        for i in range(48):
            one = (feed["anchor"][i % 3 : i % 3 + 1] + i).astype(np.float32)
            tensor = triton.InferInput("anchor", list(one.shape), "FP32")
            tensor.set_data_from_numpy(one)
            requests.append((one, client.async_infer("congestion", [tensor])))
        for one, pending in requests:
            np.testing.assert_allclose(
                pending.get_result().as_numpy("quantiles"), expected(graphed, {"anchor": one}), rtol=1e-5
            )
    text = httpx.get(f"http://{address}/metrics").text
    rows = [line for line in text.splitlines() if line.startswith("citybrain_inference_rows_total")]
    assert float(rows[0].split()[-1]) >= 48


def body(feed, **changes) -> dict:
    values = np.tile(feed["anchor"], (changes.pop("repeat", 1), 1, 1))
    tensor = {
        "name": "anchor",
        "shape": list(values.shape),
        "datatype": "FP32",
        "data": values.ravel().tolist(),
    }
    return {"inputs": [{**tensor, **changes}]}


def test_a_caller_may_bring_a_graph_of_its_own(client, graphed, feed):
    own = np.full((6, 1, 1), 100, np.float32)
    graph = {"name": "static_road", "shape": [6, 1, 1], "datatype": "FP32", "data": own.ravel().tolist()}
    request = body(feed)
    request["inputs"].append(graph)
    answer = client.post("/v2/models/congestion/infer", json=request).json()["outputs"][0]
    plain = client.post("/v2/models/congestion/infer", json=body(feed)).json()["outputs"][0]
    moved = np.reshape(answer["data"], answer["shape"]) - np.reshape(plain["data"], plain["shape"])
    bias = graphed.graph["static_road"].reshape(1, 6, 1, 1)
    np.testing.assert_allclose(moved, np.broadcast_to(100 - bias, moved.shape), rtol=1e-4)


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/v2/models/nothing", 404, "there is no model 'nothing'"),
        ("/v2/models/nothing/ready", 404, "there is no model"),
        ("/v2/models/congestion/versions/2", 404, "no version '2'"),
        ("/v2/models/congestion/infer", 405, "GET is not possible"),
        ("/v2/anything/else", 404, "not part of the protocol"),
    ],
)
def test_errors_have_the_form_of_the_protocol(client, path, status, said):
    answer = client.get(path)
    assert answer.status_code == status
    assert set(answer.json()) == {"error"}
    assert said in answer.json()["error"]


@pytest.mark.parametrize(
    ("changes", "status", "said"),
    [
        ({"name": "anker"}, 400, "no input 'anker'"),
        ({"datatype": "FP64"}, 400, "must be FP32"),
        ({"shape": [3, -1, 6]}, 400, "sizes"),
        ({"repeat": 0}, 400, "at least 1 row"),
        ({"repeat": 3}, 413, "at most 8"),
    ],
)
def test_what_does_not_fit_the_model_is_named(client, feed, changes, status, said):
    answer = client.post("/v2/models/congestion/infer", json=body(feed, **changes))
    assert answer.status_code == status
    assert said in answer.json()["error"]


def test_a_method_that_an_address_does_not_take_is_refused(client):
    answer = client.put("/v2/health/live")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET"
    assert set(answer.json()) == {"error"}


def test_an_unknown_output_is_refused(client, feed):
    request = {**body(feed), "outputs": [{"name": "mean"}]}
    assert "no output 'mean'" in client.post("/v2/models/congestion/infer", json=request).json()["error"]


def test_a_body_over_the_limit_is_refused_in_the_form_of_the_protocol(client):
    answer = client.post("/v2/models/congestion/infer", content=bytes(17 * 2**20))
    assert answer.status_code == 413
    assert set(answer.json()) == {"error"}


@pytest.mark.parametrize("coding", ["identity;q=0", "gzip", None])
def test_the_short_way_and_the_way_round_answer_alike(address, graphed, feed, coding):
    body = {"inputs": [{"name": "anchor", "shape": [3, 6, 8], "datatype": "FP32", "data": feed["anchor"].tolist()}]}
    headers = {} if coding is None else {"Accept-Encoding": coding}
    with httpx.Client(base_url=f"http://{address}", headers={"Accept-Encoding": ""}) as client:
        del client.headers["Accept-Encoding"]
        answer = client.post(INFER, json=body, headers=headers)
        told = answer.json()["outputs"][0]
        counted = client.get("/metrics").text
    np.testing.assert_allclose(np.reshape(told["data"], told["shape"]), expected(graphed, feed), rtol=1e-6)
    assert (answer.headers.get("content-encoding") == "gzip") == (coding == "gzip")
    assert answer.headers["x-request-id"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert 'route="/v2/models/{model}/infer",status="200"} 1.0' in counted


def test_a_body_may_come_in_pieces(address, graphed, feed):
    body = {"inputs": [{"name": "anchor", "shape": [3, 6, 8], "datatype": "FP32", "data": feed["anchor"].tolist()}]}
    whole = httpx.Request("POST", "http://x", json=body).content
    pieces = (whole[at : at + 100] for at in range(0, len(whole), 100))
    answer = httpx.post(f"http://{address}{INFER}", content=pieces, headers={"Content-Type": "application/json"})
    assert answer.json()["outputs"][0]["shape"] == [3, 6, 6, 3]


def test_a_full_queue_says_when_to_come_back(tmp_path, graphed, feed, monkeypatch, live):
    settings = Settings(store=str(tmp_path / "s.sqlite"), clock="observations", infer_rows=3, infer_queue_rows=3)
    held, go, run = threading.Event(), threading.Event(), Network.run

    def slow(network: Network, given: dict) -> dict:
        held.set()
        assert go.wait(30)
        return run(network, given)

    monkeypatch.setattr(Network, "run", slow)
    with live(Service([graphed], settings)) as base, ThreadPoolExecutor(3) as callers:

        def ask() -> httpx.Response:
            return httpx.post(f"{base}{INFER}", json=body(feed), timeout=60)

        running = callers.submit(ask)
        assert held.wait(30)
        others = [callers.submit(ask) for _ in range(2)]  # one of them waits, and the other finds no room
        refused = next(as_completed(others)).result()
        go.set()
        answers = [asked.result().status_code for asked in (running, *others)]
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) >= 1
    assert sorted(answers) == [200, 200, 503]


def test_a_queue_holds_every_request_that_is_taken():
    with pytest.raises(ConfigError, match=r"^settings: infer_queue_rows 2 must be at least infer_rows 8"):
        load_settings({"infer_rows": 8, "infer_queue_rows": 2}, {})


def test_a_swapped_model_answers_at_the_next_request(tmp_path, graphed, feed):
    service = Service([graphed], Settings(store=str(tmp_path / "s.sqlite"), clock="observations"))
    with TestClient(create_app(service)) as client:
        before = client.post("/v2/models/congestion/infer", json=body(feed)).json()
        other = replace(graphed, graph={"static_road": graphed.graph["static_road"] + 1}, digest="ee" * 32)
        service.cycle.forecasters = {"congestion": OnnxForecaster(other)}
        after = client.post("/v2/models/congestion/infer", json=body(feed)).json()
    assert after["model_version"] == "ee" * 6 != before["model_version"]
    np.testing.assert_allclose(np.subtract(after["outputs"][0]["data"], before["outputs"][0]["data"]), 1, rtol=1e-3)
