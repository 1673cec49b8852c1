"""Proves that a plan holds every row once, keeps the memory budget, and costs as little as any other plan."""

import numpy as np
import pytest

from minisbert.text.batching import plan_batches


def cost(plan, lengths, batch_cost):
    return sum(len(rows) * max(lengths[row] for row in rows) + batch_cost for row_list in [plan] for rows in row_list)


def least_cost(lengths, max_tokens, batch_cost):
    """The least cost of all plans, by trying every cut of the sorted rows."""
    lengths = sorted(lengths)
    least = [0]
    for end in range(1, len(lengths) + 1):
        longest = lengths[end - 1]
        begins = range(max(0, end - max(1, max_tokens // longest)), end)
        least.append(min(least[begin] + (end - begin) * longest + batch_cost for begin in begins))
    return least[-1]


def cases(count):
    """Random lengths and batch costs."""
    generator = np.random.default_rng(0)
    for _ in range(count):
        lengths = generator.integers(1, 12, size=generator.integers(1, 16)).tolist()
        yield lengths, int(generator.integers(0, 25)), int(generator.choice([1, 9, 20, 40]))


def test_every_row_is_in_one_batch_and_the_budget_is_kept():
    for lengths, batch_cost, max_tokens in cases(500):
        plan = plan_batches(lengths, max_tokens, batch_cost)
        assert sorted(row for rows in plan for row in rows) == list(range(len(lengths)))
        for rows in plan:
            assert len(rows) == 1 or len(rows) * max(lengths[row] for row in rows) <= max_tokens


def test_the_longest_batch_comes_first_and_rows_ascend():
    for lengths, batch_cost, max_tokens in cases(500):
        plan = plan_batches(lengths, max_tokens, batch_cost)
        in_order = [lengths[row] for rows in reversed(plan) for row in rows]
        assert in_order == sorted(lengths)


def test_the_cost_is_the_least_there_is():
    for lengths, batch_cost, _ in cases(500):
        plan = plan_batches(lengths, 1000, batch_cost)
        assert cost(plan, lengths, batch_cost) == least_cost(lengths, 1000, batch_cost)


def test_a_tight_budget_costs_little_more_than_the_least():
    generator = np.random.default_rng(0)
    lengths = generator.lognormal(2.8, 0.4, size=3000).astype(int) + 2  # about as Korean sentences are
    for max_tokens in (300, 1024, 16384):
        plan = plan_batches(lengths, max_tokens, 64)
        assert cost(plan, lengths, 64) <= 1.02 * least_cost(lengths.tolist(), max_tokens, 64)


def test_what_the_budget_divides_is_more_than_one_batch():
    plan = plan_batches([5] * 6 + [6] * 5, 30, 10)  # together, at 6 tokens a row, they would be three batches
    assert [len(rows) for rows in plan] == [5, 6]


@pytest.mark.parametrize("batch_cost", [0, 5])
def test_equal_lengths_keep_their_order(batch_cost):
    plan = plan_batches([7] * 10, 35, batch_cost)
    assert [rows.tolist() for rows in plan] == [[5, 6, 7, 8, 9], [0, 1, 2, 3, 4]]
    many = plan_batches([7, 3] * 1000, 7000, batch_cost)  # so many that a sort has to care about the order of equals
    assert np.concatenate(many[::-1]).tolist() == [*range(1, 2000, 2), *range(0, 2000, 2)]


def test_without_a_cost_nothing_is_padded():
    plan = plan_batches([3, 9, 3, 8, 3], 100, 0)
    assert [rows.tolist() for rows in plan] == [[1], [3], [0, 2, 4]]


def test_no_rows_are_no_batches():
    assert plan_batches([], 100, 5) == []


def test_a_row_beyond_the_budget_is_a_batch_of_its_own():
    assert [rows.tolist() for rows in plan_batches([50, 2, 60], 10, 5)] == [[2], [0], [1]]
