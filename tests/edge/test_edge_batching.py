"""Requests that meet run together and get what each would have got alone."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from cellwright.edge.batching import Batches
from cellwright.edge.request import Asked


class Doubling:
    """Stands for a model: it doubles its history, and notes how many rows each run had. A row of -1 breaks the whole run."""

    def __init__(self, run_s: float) -> None:
        self.run_s, self.rows = run_s, []

    def run(self, asked: Asked) -> np.ndarray:
        self.rows.append(len(asked.history))
        if (asked.history < 0).any():
            raise ValueError("negative")
        return 2 * asked.history


def asked(value: float, rows: int = 1) -> Asked:
    return Asked(np.full((rows, 2, 1, 1), value, np.float32), np.zeros((rows, 3, 0), np.float32), np.zeros(rows, np.int64), (), 0)


def run(model, requests, budget_s=1.0):
    """Outputs (or what was raised) of requests that are made in one turn of the event loop."""

    async def all_of_them():
        with ThreadPoolExecutor(1) as pool:
            batches = Batches(pool, 1, budget_s)
            return await asyncio.gather(*(batches.run(model, one) for one in requests), return_exceptions=True)

    return asyncio.run(all_of_them())


@pytest.mark.parametrize("run_s", [1e-5, 1.0], ids=["inline", "in a thread"])
def test_those_of_one_turn_share_a_run_and_each_gets_its_own(run_s):
    model = Doubling(run_s)
    found = run(model, [asked(1, 2), asked(5), asked(7, 3)], budget_s=100)
    assert model.rows == [6]
    assert [(r.forecast.shape[0], float(r.forecast[0, 0, 0, 0])) for r in found] == [(2, 2.0), (1, 10.0), (3, 14.0)]
    assert all(r.cpu_s >= 0 for r in found)


def test_those_that_come_alone_do_not_wait_and_company_is_found_again():
    model = Doubling(1e-5)

    async def alone_then_together():
        with ThreadPoolExecutor(1) as pool:
            batches = Batches(pool, 1, 100.0)
            for _ in range(20):
                await batches.run(model, asked(1))
            for _ in range(20):
                await asyncio.gather(*(batches.run(model, asked(i)) for i in range(4)))

    asyncio.run(alone_then_together())
    assert model.rows[:20] == [1] * 20
    assert model.rows[-10:] == [4] * 10


def test_a_batch_is_no_longer_than_the_budget():
    model = Doubling(run_s=1.0)  # a row takes a second, it says; two fit
    run(model, [asked(i) for i in range(5)], budget_s=2.0)
    assert model.rows[0] == 2
    assert sum(model.rows) == 5


def test_one_alone_longer_than_the_budget_runs_all_the_same():
    model = Doubling(run_s=1.0)
    (found,) = run(model, [asked(1, rows=4)], budget_s=2.0)
    assert found.forecast.shape[0] == 4


def test_no_request_fails_for_anothers_sake():
    model = Doubling(1e-5)
    good, bad, other = run(model, [asked(1), asked(-1), asked(3)])
    assert isinstance(bad, ValueError)
    assert (float(good.forecast[0, 0, 0, 0]), float(other.forecast[0, 0, 0, 0])) == (2.0, 6.0)


def test_a_line_is_forgotten_with_its_model():
    async def one():
        with ThreadPoolExecutor(1) as pool:
            batches = Batches(pool, 1, 1.0)
            model = Doubling(1e-5)
            await batches.run(model, asked(1))
            before = len(batches._lines)
            del model
            return before, len(batches._lines)

    assert asyncio.run(one()) == (1, 0)
