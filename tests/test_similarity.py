"""Proves the four similarity functions against values worked out by hand and against their definitions."""

import numpy as np
import pytest
import torch

from minisbert.similarity import SIMILARITY_FUNCTIONS, similarity, similarity_pairwise

A = [[3.0, 4.0], [1.0, 0.0]]
B = [[6.0, 8.0], [0.0, -2.0], [3.0, 4.0]]
BY_HAND = {
    "cosine": [[1.0, -0.8, 1.0], [0.6, 0.0, 0.6]],
    "dot": [[50.0, -8.0, 25.0], [6.0, 0.0, 3.0]],
    "euclidean": [[-5.0, -(45.0**0.5), 0.0], [-(89.0**0.5), -(5.0**0.5), -(20.0**0.5)]],
    "manhattan": [[-7.0, -9.0, 0.0], [-13.0, -3.0, -6.0]],
}


@pytest.mark.parametrize("function", SIMILARITY_FUNCTIONS)
@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_values_worked_out_by_hand(function, kind):
    result = similarity(kind(A), kind(B), function)
    assert result.dtype == (torch.float64 if kind is np.array else torch.float32)
    np.testing.assert_allclose(result.numpy(), BY_HAND[function], atol=1e-6)


@pytest.mark.parametrize("function", SIMILARITY_FUNCTIONS)
def test_one_vector_is_a_row(function):
    assert similarity(A[0], B, function).tolist() == similarity(A, B, function)[:1].tolist()
    assert similarity(A, B[0], function).shape == (2, 1)


@pytest.mark.parametrize("function", SIMILARITY_FUNCTIONS)
def test_nothing_is_more_similar_to_a_vector_than_itself(function):
    vectors = torch.nn.functional.normalize(torch.randn(50, 24, generator=torch.Generator().manual_seed(0)), dim=-1)
    result = similarity(vectors, vectors, function)
    assert (result.argmax(dim=1) == torch.arange(50)).all()
    torch.testing.assert_close(result, result.T)


def test_near_vectors_have_an_exact_distance():
    a = torch.full((1, 768), 100.0)
    b = a.clone()
    b[0, 0] += 0.001
    expected = -(b - a)[0, 0].item()
    assert similarity(a, b, "euclidean").item() == pytest.approx(expected, rel=1e-6)


def test_a_vector_of_zeros_is_like_nothing():
    assert similarity([[0.0, 0.0]], A, "cosine").tolist() == [[0.0, 0.0]]


def test_half_precision_is_computed_in_float32():
    a = torch.randn(4, 24, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert torch.equal(similarity(a, a), similarity(a.float(), a.float()))


def test_no_vectors_have_no_similarities():
    assert similarity(np.zeros((0, 24), dtype=np.float32), np.zeros((3, 24), dtype=np.float32)).shape == (0, 3)


def test_an_unknown_function_is_named():
    with pytest.raises(ValueError, match="one of cosine, dot, euclidean, manhattan, found 'jaccard'"):
        similarity(A, B, "jaccard")


PAIRWISE_BY_HAND = {
    "cosine": [1, 0, 1],
    "dot": [50, 0, 8],
    "euclidean": [-5, -(5**0.5), 0],
    "manhattan": [-7, -3, 0],
}


@pytest.mark.parametrize("function", SIMILARITY_FUNCTIONS)
def test_pairs_worked_out_by_hand(function):
    a, b = np.array([[3.0, 4.0], [1.0, 0.0], [2.0, 2.0]]), [[6.0, 8.0], [0.0, 2.0], [2.0, 2.0]]
    np.testing.assert_allclose(similarity_pairwise(a, b, function), PAIRWISE_BY_HAND[function], atol=1e-15)
    assert similarity_pairwise(a, b, function).dtype == torch.float64
    assert similarity_pairwise(a[0], b[0], function).shape == (1,)


@pytest.mark.parametrize("function", SIMILARITY_FUNCTIONS)
def test_pairs_are_the_diagonal_of_all_pairs(function):
    a, b = torch.randn(2, 50, 24, generator=torch.Generator().manual_seed(0))
    expected = similarity(a, b, function).diagonal()
    torch.testing.assert_close(similarity_pairwise(a, b, function), expected, atol=1e-5, rtol=1e-5)


def test_pairs_of_equal_vectors_tie():
    vectors = torch.randn(1000, 24, generator=torch.Generator().manual_seed(0))
    for function, value in (("cosine", 1), ("euclidean", 0), ("manhattan", 0)):
        assert (similarity_pairwise(vectors, vectors.clone(), function) == value).all()


def test_pairs_that_cannot_be():
    with pytest.raises(ValueError, match="must be one of cosine, dot"):
        similarity_pairwise(A, A, "jaccard")
    with pytest.raises(ValueError, match=r"found \(2, 2\) and \(3, 2\)"):
        similarity_pairwise(A, B)
