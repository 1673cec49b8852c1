"""Proves the three losses by values worked out by hand; parity/test_training.py compares them with the reference."""

import math

import pytest
import torch
from torch import tensor

from minisbert.training.losses import CosineSimilarityLoss, MatryoshkaLoss, MultipleNegativesRankingLoss

EAST, NORTH, WEST = [1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]


def test_ranking_worked_out_by_hand():
    # Anchors east, north; positives east, west. Cosines (1, -1) and (0, 0): the first is right, the second in doubt.
    loss = MultipleNegativesRankingLoss(scale=2.0)([tensor([EAST, NORTH]), tensor([EAST, WEST])])
    first, second = math.log(1 + math.exp(-4)), math.log(2)
    assert loss.item() == pytest.approx((first + second) / 2, abs=1e-6)


def test_ranking_takes_every_hard_negative_for_every_anchor():
    anchors, positives, negatives = tensor([EAST, NORTH]), tensor([EAST, NORTH]), tensor([WEST, WEST])
    loss = MultipleNegativesRankingLoss(scale=1.0)([anchors, positives, negatives])
    # Candidates east, north, west, west: cosines (1, 0, -1, -1) and (0, 1, 0, 0).
    first = -math.log(math.e / (math.e + 1 + 2 / math.e))
    second = -math.log(math.e / (math.e + 3))
    assert loss.item() == pytest.approx((first + second) / 2, abs=1e-6)


def test_ranking_has_scale_20_and_no_use_for_labels():
    columns = [tensor([EAST, NORTH]), tensor([[1.0, 1.0], NORTH])]
    expected = math.log(1 + math.exp(20 * (0 - 0.5**0.5))), math.log(1 + math.exp(20 * (0.5**0.5 - 1)))
    assert MultipleNegativesRankingLoss()(columns).item() == pytest.approx(sum(expected) / 2, abs=1e-6)
    assert MultipleNegativesRankingLoss()(columns, tensor([0.0, 1.0])) == MultipleNegativesRankingLoss()(columns)


def test_ranking_needs_two_columns():
    with pytest.raises(ValueError, match="expected anchors and positives, found 1 column"):
        MultipleNegativesRankingLoss()([tensor([EAST])])


def test_cosine_worked_out_by_hand():
    # Cosines 1, 0, -1; labels 0.8, 0.5, -1: squares 0.04, 0.25, 0.
    columns = [tensor([EAST, EAST, EAST]), tensor([EAST, NORTH, WEST])]
    assert CosineSimilarityLoss()(columns, tensor([0.8, 0.5, -1.0])).item() == pytest.approx(0.29 / 3, abs=1e-7)


@pytest.mark.parametrize(("columns", "labels"), [(1, tensor([1.0])), (3, tensor([1.0])), (2, None)])
def test_cosine_needs_two_columns_and_labels(columns, labels):
    with pytest.raises(ValueError, match=f"expected two columns and labels, found {columns} columns"):
        CosineSimilarityLoss()([tensor([EAST])] * columns, labels)


def test_matryoshka_worked_out_by_hand():
    # Of two columns the cosine is 3/5, of the first one alone 1; label 1: 0.16 and 0, weighted 2 and 0.5.
    columns, labels = [tensor([[3.0, 4.0]]), tensor([EAST])], tensor([1.0])
    assert MatryoshkaLoss(CosineSimilarityLoss(), (2, 1), (2.0, 0.5))(columns, labels).item() == pytest.approx(0.32)
    assert MatryoshkaLoss(CosineSimilarityLoss(), (2, 1))(columns, labels).item() == pytest.approx(0.16)


def test_matryoshka_leaves_its_arguments_alone():
    columns = [tensor([[3.0, 4.0]]), tensor([EAST])]
    MatryoshkaLoss(CosineSimilarityLoss(), (1,))(columns, tensor([1.0]))
    assert [column.shape for column in columns] == [(1, 2), (1, 2)]


def test_impossible_dimensions():
    with pytest.raises(ValueError, match="the embeddings have 2 dimensions, fewer than the 3 asked for"):
        MatryoshkaLoss(CosineSimilarityLoss(), (3, 1))([tensor([EAST]), tensor([EAST])], tensor([1.0]))
    for dims in ((), (2, 0)):
        with pytest.raises(ValueError, match="positive dimensions"):
            MatryoshkaLoss(CosineSimilarityLoss(), dims)
    with pytest.raises(ValueError, match="as many weights as dimensions, found 1 and 2"):
        MatryoshkaLoss(CosineSimilarityLoss(), (2, 1), (1.0,))


def test_gradients_reach_every_column():
    torch.manual_seed(0)
    columns = [torch.randn(4, 6, requires_grad=True) for _ in range(3)]
    MatryoshkaLoss(MultipleNegativesRankingLoss(), (6, 2))(columns, None).backward()
    assert all((column.grad != 0).all() for column in columns)
