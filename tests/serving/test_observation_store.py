"""One contract for every store of observations."""

from __future__ import annotations

import threading

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from citybrain_datasets.signals import Ticks
from citybrain_serving.errors import StoreUnavailable
from citybrain_serving.fleet import Channel
from citybrain_serving.packing import pack, unpack
from citybrain_serving.store import CONFLICT, NEW, SAME, Partial, SqlStore
from citybrain_serving.tables import frames

T0 = pd.Timestamp("2026-03-02 08:00", tz="UTC")


def channel(ids: list[str], step: int = 5) -> dict[str, Channel]:
    return {"speed": Channel("speed", "road", pd.Index(ids, dtype=object), Ticks(step))}


def partial(tick: int, nodes: list[int], values: list[float]) -> Partial:
    time = int((T0 + tick * pd.Timedelta(minutes=5)).timestamp())
    return Partial("speed", time, np.array(nodes), np.array(values, np.float32))


@pytest.fixture
def store(location: str):
    made = SqlStore(location, channel(["a", "b", "c"]))
    yield made
    made.close()


def test_partial_frames_of_a_tick_merge(store):
    assert [v.tolist() for v in store.merge([partial(0, [0, 2], [10, 30])])] == [[NEW, NEW]]
    assert store.merge([partial(0, [1], [20])])[0].tolist() == [NEW]
    assert store.read("speed", T0, T0).values.tolist() == [[10, 20, 30]]


def test_the_stored_value_stays(store):
    store.merge([partial(0, [0, 1], [10, 20])])
    assert store.merge([partial(0, [0, 1, 2], [10, 21, 30])])[0].tolist() == [SAME, CONFLICT, NEW]
    assert store.read("speed", T0, T0).values.tolist() == [[10, 20, 30]]


def test_two_partials_of_one_tick_in_one_call(store):
    assert [v.tolist() for v in store.merge([partial(0, [0], [1]), partial(0, [0, 1], [2, 3])])] == [
        [NEW],
        [CONFLICT, NEW],
    ]
    assert store.read("speed", T0, T0).values[0, :2].tolist() == [1, 3]


def test_what_was_never_measured_is_nan(store):
    store.merge([partial(0, [0], [10]), partial(2, [0], [12])])
    signal = store.read("speed", T0, T0 + pd.Timedelta(minutes=15))
    assert signal.start == T0
    assert signal.shape == (4, 3)
    np.testing.assert_array_equal(signal.values[:, 0], [10, np.nan, 12, np.nan])
    assert np.isnan(signal.values[:, 1:]).all()


def test_newest_is_the_latest_tick_whatever_came_last(store):
    assert store.newest() == {}
    store.merge([partial(3, [0], [10])])
    store.merge([partial(1, [0], [10])])
    assert store.newest() == {"speed": T0 + pd.Timedelta(minutes=15)}


def test_observations_outlive_the_process_and_a_new_order_of_nodes(location):
    with_abc = SqlStore(location, channel(["a", "b", "c"]))
    with_abc.merge([partial(0, [0, 1, 2], [10, 20, 30])])
    with_abc.close()
    with_cad = SqlStore(location, channel(["c", "a", "d"]))
    np.testing.assert_array_equal(with_cad.read("speed", T0, T0).values, [[30, 10, np.nan]])
    with_cad.merge([partial(0, [2], [40])])
    np.testing.assert_array_equal(with_cad.read("speed", T0, T0).values, [[30, 10, 40]])
    with_cad.close()


def test_two_writers_lose_nothing(location):
    stores = [SqlStore(location, channel([str(i) for i in range(40)])) for _ in range(2)]

    def write(which: int) -> None:
        for node in range(which, 40, 2):
            stores[which].merge([partial(0, [node], [float(node)])])

    threads = [threading.Thread(target=write, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stores[0].read("speed", T0, T0).values[0].tolist() == list(range(40))
    for each in stores:
        each.close()


def test_sqlite_flushes_every_commit(tmp_path):
    store = SqlStore(str(tmp_path / "s.sqlite"), channel(["a"]))
    with store.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL


def test_a_full_disk_is_an_error_and_loses_nothing(tmp_path):
    store = SqlStore(str(tmp_path / "s.sqlite"), channel(["a", "b", "c"]))
    store.merge([partial(0, [0], [10])])
    with store.engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
    sa.event.listen(store.engine, "begin", lambda c: c.exec_driver_sql(f"PRAGMA max_page_count={pages}"))
    store.engine.dispose()
    with pytest.raises(StoreUnavailable):
        store.merge([partial(tick, [0, 1, 2], [1, 2, 3]) for tick in range(1, 400)])
    assert store.read("speed", T0, T0).values[0, 0] == 10
    assert np.isnan(store.read("speed", T0 + pd.Timedelta(minutes=5), T0 + pd.Timedelta(minutes=5)).values).all()


def test_a_damaged_frame_is_told(store):
    store.merge([partial(0, [0], [10])])
    with store.engine.begin() as connection:
        connection.execute(frames.update().values(values=bytes.fromhex("0c00000000")))
    with pytest.raises(StoreUnavailable, match="damaged"):
        store.read("speed", T0, T0)


@given(hnp.arrays(np.float32, st.integers(1, 300), elements=st.floats(width=32, allow_infinity=False)))
def test_packing_is_exact(values):
    np.testing.assert_array_equal(unpack(pack(values), len(values)), values)
