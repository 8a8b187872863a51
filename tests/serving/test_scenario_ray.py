"""Scoring on a Ray cluster of two nodes, one of which is lost midway."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from citybrain_datasets.scenarios.reading import read_scenarios
from citybrain_serving.scenarios.engine import LocalEngine, RayEngine, Work
from citybrain_serving.scenarios.run import score_to, surrogate_for

ray = pytest.importorskip("ray", reason="the extra `ray` is not installed here")
cluster_utils = pytest.importorskip("ray.cluster_utils", reason="the extra `ray` is not installed here")

SWEEP = '{"id": "s", "sample": {"count": 120, "draw": {"f": {"uniform": [0.8, 1.1]}}}, "measures": [{"lever": "demand", "factor": "$f"}]}'  # noqa: E501  # one line of a file
EVEN = {"delay_veh_h": 1.0, "pm25_people": 1.0}


@pytest.fixture
def cluster() -> Iterator[object]:
    made = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    made.second = made.add_node(num_cpus=1)
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.mark.timeout(280)
def test_two_nodes_give_the_same_ranking_and_so_do_the_survivors(cluster, tmp_path):
    path = tmp_path / "sweep.jsonl"
    path.write_text(SWEEP + "\n", encoding="utf-8")
    work = Work(read_scenarios(path), surrogate_for("embedded"), "embedded", chunk=8)
    whole, spread = tmp_path / "whole.parquet", tmp_path / "spread.parquet"
    score_to(work, whole, EVEN, LocalEngine(1))

    class Losing(RayEngine):
        lost = False

        def run(self, work, numbers):
            for found in super().run(work, numbers):
                yield found
                if not self.lost:
                    self.lost = True
                    cluster.remove_node(cluster.second)

    engine = Losing(cluster.address)
    score_to(work, spread, EVEN, engine)
    assert engine.lost
    assert spread.read_bytes() == whole.read_bytes()
