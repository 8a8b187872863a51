"""Folders made to harm whoever reads them: every one is refused, and named."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from onnx import TensorProto, helper

from citybrain_datasets.city import City
from citybrain_datasets.statistics import Profile, Scaler, Statistics
from citybrain_datasets.task import Task
from citybrain_models.bundle import Bundle
from citybrain_models.calibration import Calibration
from citybrain_models.files import MANIFEST, BundleError, sha, to_npz
from citybrain_models.onnx_forecaster import OnnxForecaster

TASK = Task(
    name="congestion", node="road", target="speed", step_minutes=5, history=4, horizon=2,
    quantiles=(0.1, 0.5, 0.9), seasonal_days=(1,), coarse=(4, 1),
)  # fmt: skip


def graph(*initializers: TensorProto) -> bytes:
    """A network that answers the sum of what it is given and of tensors that a test puts in."""
    sides = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", "node", 4]) for name in ("anchor", "out")]
    nodes = [helper.make_node("Sum", ["anchor", *(tensor.name for tensor in initializers)], ["out"])]
    made = helper.make_graph(nodes, "sum", sides[:1], sides[1:], list(initializers))
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(made, opset_imports=opset, ir_version=9).SerializeToString()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bundle that is read without complaint."""
    columns = {"lat": [31.2], "lon": [121.5], "name": "A", "name_zh": "", "owner": "", "cell": "c"}
    roads = pd.DataFrame({**columns, "free_speed_kmh": 60.0, "road_class": "local"}, index=pd.Index(["r0"], name="id"))
    profile = Profile(60, np.zeros((168, 1), np.float32))
    bundle = Bundle(
        task=TASK,
        city=City(name="small", timezone="UTC", nodes={"road": roads}, edges={}, signals={}),
        placing={"speed": "road"},
        statistics=Statistics({"speed": Scaler("identity", 0.0, 1.0)}, {"speed": profile}),
        graph={},
        model=graph(),
        calibration=Calibration.none(TASK),
        fingerprint="0" * 64,
        created="2026-03-20T00:00:00Z",
    )
    bundle.write(tmp_path / "bundle")
    assert OnnxForecaster(Bundle.read(tmp_path / "bundle")).inputs == ["anchor"]
    return tmp_path / "bundle"


@contextmanager
def manifest_of(folder: Path) -> Iterator[dict[str, Any]]:
    manifest = json.loads((folder / MANIFEST).read_text())
    yield manifest
    (folder / MANIFEST).write_text(json.dumps(manifest))


def put(folder: Path, name: str, data: bytes) -> None:
    """A file with the digest that the manifest says: whoever makes a bundle can do that."""
    (folder / name).write_bytes(data)
    with manifest_of(folder) as manifest:
        manifest["files"][name] = {"sha256": sha(data), "bytes": len(data)}


def link(make: Callable[[Path, Path], None], name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        secret = folder.parent / "secret"
        secret.write_bytes((folder / name).read_bytes())
        (folder / name).unlink()
        make(secret, folder / name)

    return change


def pipe(folder: Path) -> None:
    (folder / "card.md").unlink()
    os.mkfifo(folder / "card.md")


def directory(folder: Path) -> None:
    (folder / "card.md").unlink()
    (folder / "card.md").mkdir()


def named(name: str) -> Callable[[Path], None]:
    """The manifest calls a file by another name."""

    def change(folder: Path) -> None:
        (folder.parent / "secret").write_bytes((folder / "card.md").read_bytes())
        with manifest_of(folder) as manifest:
            manifest["files"][name] = manifest["files"].pop("card.md")

    return change


def says(**members: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        with manifest_of(folder) as manifest:
            manifest.update(members)

    return change


def plain(name: str, data: bytes) -> Callable[[Path], None]:
    return lambda folder: put(folder, name, data)


def raw_manifest(data: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / MANIFEST).write_bytes(data) and None


def changed(folder: Path) -> None:
    data = (folder / "graph.npz").read_bytes()
    (folder / "graph.npz").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def grown(folder: Path) -> None:
    """A sparse file of a terabyte, declared as a few bytes."""
    os.truncate(folder / "model.onnx", 2**40)


def declared(folder: Path) -> None:
    """The same, declared truly."""
    os.truncate(folder / "model.onnx", 2**40)
    with manifest_of(folder) as manifest:
        manifest["files"]["model.onnx"]["bytes"] = 2**40


def external(location: str) -> bytes:
    tensor = TensorProto(name="weights", dims=[16], data_type=TensorProto.FLOAT)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return graph(tensor)


def zipped(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return out.getvalue()


def header(shape: str, kind: str = "<f4") -> bytes:
    """The header of an array, with nothing behind it."""
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def bomb() -> bytes:
    """An archive that says of its only member that it unpacks to 4 GiB."""
    data = bytearray(zipped(x=bytes(2**20)))
    at = data.index(b"PK\x01\x02") + 24
    data[at : at + 4] = struct.pack("<I", 0xFFFF_FFF0)
    return bytes(data)


def pickled() -> bytes:
    out = io.BytesIO()
    np.save(out, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return out.getvalue()


def billions_of_rows() -> bytes:
    """210 million equal values, run-length encoded into a few hundred bytes a group."""
    out = io.BytesIO()
    part = pa.table({"lat": pa.nulls(10_000_000, pa.float32())})
    with pq.ParquetWriter(out, part.schema, compression="zstd") as writer:
        for _ in range(21):
            writer.write_table(part, row_group_size=len(part))
    return out.getvalue()


HUGE = TensorProto(name="weights", dims=[2**31, 2**31], data_type=TensorProto.FLOAT)

HOSTILE: dict[str, Callable[[Path], None]] = {
    "tensors in a foreign file": plain("model.onnx", external("../secret")),
    "tensors at an absolute path": plain("model.onnx", external("/etc/passwd")),
    "a network that is none": plain("model.onnx", b"\x08" * 64),
    "a symbolic link": link(lambda at, path: path.symlink_to(at), "card.md"),
    "a symbolic link as manifest": link(lambda at, path: path.symlink_to(at), MANIFEST),
    "a hard link": link(lambda at, path: path.hardlink_to(at), "card.md"),
    "a hard link as manifest": link(lambda at, path: path.hardlink_to(at), MANIFEST),
    "a pipe": pipe,
    "a directory": directory,
    "a name that leads out": named("../secret"),
    "an absolute name": named("/etc/passwd"),
    "a name with a folder": named("a/../card.md"),
    "an empty name": named(""),
    "the folder itself": named("."),
    "a file too many": lambda folder: (folder / "more").write_bytes(b"") and None,
    "a byte changed": changed,
    "a digest of another kind": says(files={"card.md": {"sha256": 7, "bytes": 1}}),
    "files as a list": says(files=["card.md"]),
    "files as text": says(files="card.md"),
    "entries that are none": says(files={"card.md": None}),
    "another format": says(format=99),
    "a manifest without end": raw_manifest(b"[" * 100_000),
    "a manifest of megabytes": raw_manifest(b" " * 2**21 + b"{}"),
    "a manifest that is a number": raw_manifest(b"7"),
    "a terabyte undeclared": grown,
    "a terabyte declared": declared,
    "a negative size": says(files={"card.md": {"sha256": "0" * 64, "bytes": -1}}),
    "pickle in an array": plain("graph.npz", zipped(x=pickled())),
    "pickle as arrays": plain("graph.npz", pickle.dumps({"x": 1})),
    "one array as arrays": plain("graph.npz", header("(0,)")),
    "an archive that unpacks to gigabytes": plain("graph.npz", bomb()),
    "an array of a huge shape": plain("graph.npz", zipped(x=header("(2147483648, 2147483648)"))),
    "an array of a shape that overflows": plain("graph.npz", zipped(x=header("(9223372036854775807, 4)"))),
    "an array of a negative shape": plain("profiles.npz", zipped(**{"speed.60": header("(-1, 7)")})),
    "an array with a program for a header": plain("graph.npz", zipped(x=header("__import__('os').getpid()"))),
    "an archive cut short": plain("graph.npz", to_npz({"x": np.ones(9)})[:-30]),
    "a profile without a clock": plain("profiles.npz", to_npz({"speed": np.ones(9)})),
    "a table of pickle": plain("nodes.road.parquet", pickle.dumps([1])),
    "a table of billions of rows": lambda folder: put(folder, "nodes.road.parquet", billions_of_rows()),
    "a table of another kind": plain("ideas.road.parquet", b"PAR1"),
    "JSON without end": plain("city.json", b"[" * 100_000),
    "JSON of another shape": plain("scalers.json", b"[1]"),
    "a task of infinite steps": plain("task.json", b'{"name": "congestion", "step_minutes": 1e999}'),
    "a card that is no text": plain("card.md", b"\xff\xfe\xfd"),
    "a network of a huge tensor": plain("model.onnx", graph(HUGE)),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_bundle_is_refused(folder: Path, change: Callable[[Path], None]):
    change(folder)
    with pytest.raises(BundleError) as refused:
        OnnxForecaster(Bundle.read(folder))
    assert str(refused.value)


def test_a_file_that_grew_is_told_as_changed(folder: Path):
    size = (folder / "card.md").stat().st_size
    with (folder / "card.md").open("ab") as card:
        card.write(b"x")
    told = rf"card\.md: {size + 1} bytes; the manifest says {size}; the file was damaged or changed$"
    with pytest.raises(BundleError, match=told):
        Bundle.read(folder)


def test_a_bundle_behind_a_link_is_refused(folder: Path):
    (folder.parent / "other").symlink_to(folder)
    with pytest.raises(BundleError, match="no bundle folder"):
        Bundle.read(folder.parent / "other")


def test_nothing_is_read_through_a_tensor_of_a_nested_graph(folder: Path):
    """Subgraphs of a branch hold tensors as well."""
    inner = onnx.load_from_string(external("../secret")).graph
    outer = onnx.load_from_string(graph())
    outer.graph.node.append(helper.make_node("If", ["c"], ["d"], then_branch=inner, else_branch=inner))
    put(folder, "model.onnx", outer.SerializeToString())
    with pytest.raises(BundleError, match="outside the file"):
        Bundle.read(folder)


def test_a_bundle_may_be_written_again_over_itself(folder: Path):
    bundle = Bundle.read(folder)
    assert replace(bundle, card="new").write(folder).digest == Bundle.read(folder).digest != bundle.digest


def test_a_bundle_from_before_the_parts_of_the_day_is_read_and_treats_all_hours_alike(folder: Path) -> None:
    found = json.loads((folder / "calibration.json").read_text())
    del found["by_part"]
    put(folder, "calibration.json", json.dumps(found).encode())
    assert len(Bundle.read(folder).calibration.by_part) == 0


def test_a_bundle_with_other_parts_of_the_day_is_refused(folder: Path) -> None:
    found = json.loads((folder / "calibration.json").read_text())
    put(folder, "calibration.json", json.dumps({**found, "by_part": [found["shift"]] * 5}).encode())
    with pytest.raises(BundleError, match="5 parts of the day"):
        Bundle.read(folder)
