"""Proves the correlations against values worked out by hand and against what must hold for all."""

import math

import numpy as np
import pytest

from minisbert.errors import InputError
from minisbert.evaluation import EmbeddingSimilarityEvaluator, pearson, ranks, spearman
from tests.tiny import SENTENCES, tiny_model

random_numbers = np.random.default_rng(0).standard_normal


def test_pearson_worked_out_by_hand():
    # Deviations (-2, -1, 0, 1, 2) and (-2, 0, -1, 2, 1): 8 / sqrt(10 * 10).
    assert pearson([1, 2, 3, 4, 5], [1, 3, 2, 5, 4]) == pytest.approx(0.8, abs=1e-15)
    # Deviations (-1, 0, 1) and (-4, -3, 7): 11 / sqrt(2 * 74).
    assert pearson([1, 2, 3], [0, 1, 11]) == pytest.approx(11 / 148**0.5, abs=1e-15)


def test_spearman_worked_out_by_hand():
    # Without ties, 1 - 6 (1 + 1 + 4 + 0 + 4) / (5 * 24).
    assert spearman([10, 20, 30, 40, 50], [2, 1, 5, 4, 3]) == pytest.approx(0.5, abs=1e-15)
    # Ranks (1.5, 1.5, 3, 4) and (1, 2, 3.5, 3.5): deviations (-1, -1, .5, 1.5), (-1.5, -.5, 1, 1), 4.5 / 4.5.
    assert spearman([0, 0, 1, 2], [0, 1, 7, 7]) == pytest.approx(4.0 / 4.5, abs=1e-15)


def test_ranks_with_ties():
    assert ranks([3.0, 1.0, 3.0, 2.0, 3.0]).tolist() == [4.0, 1.0, 4.0, 2.0, 4.0]
    assert ranks([7.0]).tolist() == [1.0]
    values = random_numbers(100).round(1)
    assert ranks(values).sum() == 5050


def test_pearson_ignores_scale_and_origin():
    x, y = random_numbers((2, 200))
    assert pearson(3 * x + 5, 0.1 * y - 7) == pytest.approx(pearson(x, y), abs=1e-12)
    assert pearson(-x, y) == pytest.approx(-pearson(x, y), abs=1e-15)
    assert pearson(x, y) == pearson(y, x)
    assert pearson(x + 1e6, y) == pytest.approx(pearson(x, y), abs=1e-9)


def test_spearman_ignores_every_monotone_map():
    x, y = random_numbers((2, 200))
    x = x.round(1)  # with ties
    expected = spearman(x, y)
    assert spearman(np.exp(x), y**3) == expected
    assert spearman(-x, y) == pytest.approx(-expected, abs=1e-15)


def test_perfect_correlations_are_one_and_constants_have_none():
    x = random_numbers(1000)
    assert pearson(x, x) == pytest.approx(1, abs=1e-15)
    assert -1 <= pearson(x, -x) <= pearson(x, x) <= 1
    assert np.isnan(pearson([1, 1, 1], [1, 2, 3]))
    assert np.isnan(spearman([1, 2, 3], [0.1, 0.1, 0.1]))
    assert np.isnan(pearson([1, 2, 3], [0.1, 0.1, 0.1])), "the mean of these is not 0.1"


def test_the_evaluator_gives_eight_numbers():
    model = tiny_model()
    pairs = SENTENCES, SENTENCES[::-1], [0.0, 1.5, 2.0, 2.0, 4.0, 5.0]
    result = EmbeddingSimilarityEvaluator(*pairs, name="sts")(model)
    assert list(result) == [
        f"sts_{correlation}_{function}"
        for function in ("cosine", "euclidean", "manhattan", "dot")
        for correlation in ("pearson", "spearman")
    ]
    a, b = model.encode(pairs[0]), model.encode(pairs[1])
    cosines = [float(model.similarity(u, v)) for u, v in zip(a, b, strict=True)]
    assert result["sts_pearson_cosine"] == pytest.approx(pearson(cosines, pairs[2]), abs=1e-2)
    assert "pearson_cosine" in EmbeddingSimilarityEvaluator(*pairs)(model)


def test_the_largest_spearman_picks_the_best_model():
    evaluator = EmbeddingSimilarityEvaluator(["밥", "물"], ["빵", "길"], [1.0, 2.0], name="my_spearman-pearson")
    result = dict.fromkeys(evaluator.columns.values(), 0.9)
    assert list(result) == [f"my_spearman-pearson_{'_'.join(key.split('_')[::-1])}" for key in evaluator.columns]
    for number, function in enumerate(("cosine", "euclidean", "manhattan", "dot")):
        result[evaluator.columns[f"{function}_spearman"]] = number / 10
    assert evaluator.main_score(result) == 0.3
    result[evaluator.columns["dot_spearman"]] = math.nan
    assert evaluator.main_score(result) == 0.2
    assert evaluator.main_score(dict.fromkeys(result, math.nan)) == -1


@pytest.mark.parametrize("sizes", [(1, 1, 1), (0, 0, 0), (3, 2, 3), (3, 3, 2)])
def test_columns_must_match(sizes):
    with pytest.raises(InputError, match="at least two pairs"):
        EmbeddingSimilarityEvaluator(["밥"] * sizes[0], ["빵"] * sizes[1], [1.0] * sizes[2])
