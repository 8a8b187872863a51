"""Dynamic batching: who shares a batch, who is refused, and what happens when the model fails."""

import asyncio
import itertools
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from citybrain_serving.inference import batching
from citybrain_serving.inference.batching import Batcher, Limits
from citybrain_serving.inference.errors import Overloaded, RequestTooLarge


class Doubling:
    """Doubles its input; it holds the first batch until ``go``, so that others gather behind it."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.entered, self.go = threading.Event(), threading.Event()
        self.threads: set[int] = set()
        self.failure: Exception | None = None

    def run(self, feed):
        self.entered.set()
        assert self.go.wait(10)
        self.threads.add(threading.get_ident())
        self.batches.append(len(feed["x"]))
        if self.failure is not None:
            raise self.failure
        return {"y": 2 * feed["x"]}


def tensor(rows: int, value: float = 1.0) -> dict[str, np.ndarray]:
    return {"x": np.full((rows, 3), value, np.float32)}


async def behind(model: Doubling, batcher: Batcher, requests: list[tuple[int, bool]]) -> list:
    """Answers to ``requests`` that arrive while a first one runs."""
    first = asyncio.create_task(batcher.submit(tensor(1, -1), 1))
    await asyncio.to_thread(model.entered.wait, 10)
    tasks = [
        asyncio.create_task(batcher.submit(tensor(rows, i), rows, alone=alone))
        for i, (rows, alone) in enumerate(requests)
    ]
    await asyncio.sleep(0)  # lets every task reach the queue
    model.go.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert (await asyncio.gather(first, return_exceptions=True))[0] is not None
    await batcher.close()
    return answers


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4), st.booleans()), max_size=12), st.integers(4, 9))
def test_every_caller_gets_the_rows_it_sent(requests, most):
    model = Doubling()
    answers = asyncio.run(behind(model, Batcher(model, Limits(most, 0.0, 10_000)), requests))
    for i, ((rows, _), answer) in enumerate(zip(requests, answers, strict=True)):
        np.testing.assert_array_equal(answer["y"], np.full((rows, 3), 2 * i))
    assert max(model.batches) <= most
    assert sum(model.batches) == 1 + sum(rows for rows, _ in requests)
    assert len(model.threads) == 1
    assert threading.get_ident() not in model.threads


def test_requests_that_wait_share_a_batch():
    model, told = Doubling(), []
    batcher = Batcher(model, Limits(8, 0.0, 100), lambda requests, rows: told.append((requests, rows)))
    asyncio.run(behind(model, batcher, [(2, False)] * 6))
    assert model.batches == [1, 8, 4]
    assert told == [(1, 1), (4, 8), (2, 4)]


def test_a_request_on_a_graph_of_its_own_shares_nothing():
    model = Doubling()
    asyncio.run(behind(model, Batcher(model, Limits(8, 0.0, 100)), [(1, False), (1, True), (1, False), (1, False)]))
    assert model.batches == [1, 1, 1, 2]


def test_a_full_queue_refuses_and_keeps_what_it_has():
    async def run() -> None:
        model = Doubling()
        batcher = Batcher(model, Limits(4, 0.0, 4))
        running = asyncio.create_task(batcher.submit(tensor(1), 1))
        await asyncio.to_thread(model.entered.wait, 10)
        waiting = asyncio.create_task(batcher.submit(tensor(4), 4))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await batcher.submit(tensor(1), 1)
        with pytest.raises(RequestTooLarge):
            await batcher.submit(tensor(5), 5)
        model.go.set()
        assert len((await waiting)["y"]) == 4
        assert len((await running)["y"]) == 1
        assert batcher.queued_rows == 0
        await batcher.close()

    asyncio.run(run())


def test_what_the_queue_can_never_hold_is_too_large_and_not_told_to_come_back():
    async def run() -> None:
        batcher = Batcher(Doubling(), Limits(8, 0.0, 2))
        with pytest.raises(RequestTooLarge, match="3 rows; at most 2"):
            await batcher.submit(tensor(3), 3)
        await batcher.close()

    asyncio.run(run())


def test_a_caller_that_went_away_is_not_computed():
    async def run() -> list[int]:
        model = Doubling()
        batcher = Batcher(model, Limits(8, 0.0, 100))
        running = asyncio.create_task(batcher.submit(tensor(1), 1))
        await asyncio.to_thread(model.entered.wait, 10)
        gone = asyncio.create_task(batcher.submit(tensor(3), 3))
        stays = asyncio.create_task(batcher.submit(tensor(2), 2))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        model.go.set()
        await asyncio.gather(running, stays)
        await batcher.close()
        return model.batches

    assert asyncio.run(run()) == [1, 2]


def test_a_failing_batch_fails_its_callers_and_nobody_else():
    async def run() -> None:
        model = Doubling()
        model.go.set()
        model.failure = ValueError("no")
        batcher = Batcher(model, Limits(8, 0.0, 100))
        with pytest.raises(ValueError, match="no"):
            await batcher.submit(tensor(1), 1)
        model.failure = None
        assert len((await batcher.submit(tensor(2), 2))["y"]) == 2
        await batcher.close()

    asyncio.run(run())


def test_with_company_a_batch_waits_until_half_of_it_is_back_or_the_delay_is_over():
    async def run() -> list[int]:
        model = Doubling()
        batcher = Batcher(model, Limits(4, 30.0, 100))  # far longer than the test: only company ends it
        first = asyncio.create_task(batcher.submit(tensor(1), 1))
        await asyncio.to_thread(model.entered.wait, 10)
        pair = [asyncio.create_task(batcher.submit(tensor(2), 2)) for _ in range(2)]
        await asyncio.sleep(0)
        model.go.set()
        await asyncio.gather(first, *pair)
        late = [asyncio.create_task(batcher.submit(tensor(1), 1))]
        await asyncio.sleep(0)
        late.append(asyncio.create_task(batcher.submit(tensor(1), 1)))
        await asyncio.gather(*late)
        await batcher.close()
        return model.batches

    assert asyncio.run(run()) == [1, 4, 2]


def test_rows_that_fit_no_cache_together_share_no_batch():
    model = Doubling()
    row = tensor(1)["x"].nbytes
    batcher = Batcher(model, Limits(8, 0.0, 100, size=3 * row))
    asyncio.run(behind(model, batcher, [(1, False)] * 4 + [(5, False), (1, False)]))
    assert model.batches == [1, 3, 1, 5, 1]


def test_a_caller_alone_is_answered_where_it_stands(monkeypatch):
    """On the event loop once the model is known to be prompt, however long others had the processor meanwhile, and
    until somebody else asks."""
    waited = itertools.count(step=1000.0)
    monkeypatch.setattr(batching.time, "perf_counter", lambda: next(waited))
    monkeypatch.setattr(batching, "ALONE_S", 1000.0)

    async def run() -> list[bool]:
        model, here = Doubling(), []
        model.go.set()
        batcher = Batcher(model, Limits())
        for caller in ("one", "one", "one", "two", "one", "one"):
            model.threads.clear()
            answer = await batcher.submit(tensor(2, 3), 2, caller=caller)
            np.testing.assert_array_equal(answer["y"], np.full((2, 3), 6))
            here.append(model.threads == {threading.get_ident()})
        await batcher.close()
        return here

    assert asyncio.run(run()) == [False, True, True, False, False, False]


@pytest.mark.parametrize("caller", [None, "one"])
def test_a_slow_model_and_an_unknown_caller_keep_nobody_waiting(caller, monkeypatch):
    async def run() -> set[int]:
        model = Doubling()
        model.go.set()
        batcher = Batcher(model, Limits())
        for _ in range(3):
            await batcher.submit(tensor(1), 1, caller=caller)
        await batcher.close()
        return model.threads

    if caller:
        monkeypatch.setattr(batching, "PROMPT_S", 0.0)
    assert threading.get_ident() not in asyncio.run(run())


def test_who_holds_a_batcher_that_is_closed_is_still_answered():
    """A model is swapped while one request runs and another has just found the old one."""

    async def swapped() -> list:
        model = Doubling()
        batcher = Batcher(model, Limits(8, 0.0, 100))
        running = asyncio.create_task(batcher.submit(tensor(1, 1), 1))
        await asyncio.to_thread(model.entered.wait, 10)
        closing = asyncio.create_task(batcher.close())
        await asyncio.sleep(0)  # lets the closing begin
        late = asyncio.create_task(batcher.submit(tensor(1, 2), 1))
        model.go.set()
        await closing
        return [float((await answer)["y"][0, 0]) for answer in (running, late)]

    assert asyncio.run(swapped()) == [2, 4]
