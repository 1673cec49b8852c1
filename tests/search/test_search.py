"""Proves that search is exact: it finds what comparing everything with everything finds, whatever the size of the blocks."""

import itertools

import numpy as np
import pytest
import torch

from minisbert.errors import InputError, NonFiniteError
from minisbert.search import community_detection, mine_hard_negatives, paraphrase_mining, semantic_search
from tests.tiny import tiny_model


def some_vectors(rows: int, width: int = 16, seed: int = 0) -> np.ndarray:
    """Random vectors, a third of them near another one, a few equal to another one but for their length."""
    generator = np.random.default_rng(seed)
    vectors = generator.normal(size=(rows, width)).astype(np.float32)
    near = generator.permutation(rows)[: rows // 3]
    vectors[near] = vectors[generator.permutation(rows)[: rows // 3]] + 0.2 * generator.normal(size=(rows // 3, width))
    vectors[rows // 2 : rows // 2 + 3] = 2 * vectors[:3]
    return vectors


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return (a / np.linalg.norm(a, axis=1, keepdims=True)) @ (b / np.linalg.norm(b, axis=1, keepdims=True)).T


@pytest.mark.parametrize("chunk", [1, 7, 100, 4096])
@pytest.mark.parametrize("top_k", [1, 5, 1000])
def test_the_nearest_are_those_of_the_whole_matrix(chunk, top_k):
    corpus, queries = some_vectors(300), some_vectors(9, seed=1)
    expected = cosines(queries, corpus)
    for hits, row in zip(semantic_search(queries, corpus, top_k, corpus_chunk_size=chunk), expected, strict=True):
        order = np.lexsort((np.arange(300), -row.astype(np.float32)))[:top_k]
        assert [hit["corpus_id"] for hit in hits] == order.tolist()
        np.testing.assert_allclose([hit["score"] for hit in hits], row[order], atol=1e-6)


@pytest.mark.parametrize("function", ["cosine", "dot", "euclidean", "manhattan"])
def test_no_result_depends_on_the_size_of_the_blocks(function):
    corpus, queries = some_vectors(200), some_vectors(5, seed=1)
    whole = semantic_search(queries, corpus, 7, function=function)
    for chunk in (1, 13, 64):
        assert semantic_search(queries, corpus, 7, corpus_chunk_size=chunk, function=function) == whole


def test_equal_vectors_come_in_the_order_of_their_rows():
    corpus = np.tile(some_vectors(1), (500, 1))
    for chunk in (3, 100, 500):
        (hits,) = semantic_search(corpus[0], corpus, 4, corpus_chunk_size=chunk)
        assert [hit["corpus_id"] for hit in hits] == [0, 1, 2, 3]
        assert {hit["score"] for hit in hits} == {1.0}


def test_arrays_mapped_arrays_tensors_and_lists_are_the_same(tmp_path):
    corpus, query = some_vectors(50), some_vectors(1, seed=1)
    np.save(tmp_path / "벡터.npy", corpus)
    expected = semantic_search(query, corpus)
    for form in (np.load(tmp_path / "벡터.npy", mmap_mode="r"), torch.from_numpy(corpus), corpus.tolist()):
        assert semantic_search(query, form) == expected
    assert semantic_search(query[0], corpus) == expected


def test_pairs_are_those_of_the_whole_matrix():
    vectors = some_vectors(300)
    matrix = cosines(vectors, vectors).astype(np.float32)
    expected = sorted((-matrix[i, j], i, j) for i, j in itertools.combinations(range(300), 2) if matrix[i, j] >= 0.8)
    for chunk in (7, 100, 4096):
        found = paraphrase_mining(vectors, 0.8, corpus_chunk_size=chunk)
        assert [(i, j) for _, i, j in found] == [(i, j) for _, i, j in expected]
        np.testing.assert_allclose([score for score, _, _ in found], [-score for score, _, _ in expected], atol=1e-6)


def test_a_thousand_equal_texts_do_not_make_half_a_million_pairs():
    found = paraphrase_mining(np.ones((1000, 4), dtype=np.float32), 0.9, top_k=3)
    assert len(found) <= 3 * 1000
    assert {score for score, _, _ in found} == {1.0}


def greedy_groups(vectors: np.ndarray, threshold: float) -> list[set[int]]:
    """By the definition: all groups, the largest first, without the rows that are taken."""
    alike = cosines(vectors, vectors).astype(np.float32) >= threshold
    groups, taken = [], set()
    for centre in sorted(range(len(vectors)), key=lambda row: -alike[row].sum()):
        group = set(np.flatnonzero(alike[centre]).tolist()) - taken
        if centre not in taken and len(group) >= 2:
            groups.append(group)
            taken |= group
    return sorted(groups, key=len, reverse=True)


def test_groups_are_those_of_the_definition():
    vectors = some_vectors(300)
    expected = greedy_groups(vectors, 0.7)
    assert len(expected) > 10
    for size in (7, 100, 4096):
        assert [set(group) for group in community_detection(vectors, 0.7, batch_size=size)] == expected


def test_everything_alike_is_one_group():
    groups = community_detection(np.ones((3000, 4), dtype=np.float32), 0.9)
    assert groups == [list(range(3000))]


@pytest.mark.parametrize("find", [lambda rows: paraphrase_mining(rows, 0.5), community_detection])
def test_no_rows_and_one_row_have_no_partner(find):
    assert find(np.empty((0, 4), dtype=np.float32)) == []
    assert find(np.ones((1, 4), dtype=np.float32)) == []


def test_no_rows_to_search_in_and_no_queries():
    assert semantic_search(np.ones((2, 4)), np.empty((0, 4))) == [[], []]
    assert semantic_search(np.empty((0, 4)), np.ones((3, 4))) == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda v: semantic_search(v, v, top_k=0), "top_k must be at least 1, found 0"),
        (lambda v: semantic_search(v[:, :3], v), "the queries have 3 columns, the corpus has 16"),
        (lambda v: semantic_search(v[None], v), r"expected vectors as rows, \(N, D\), found the shape \(1, 20, 16\)"),
        (lambda v: paraphrase_mining(v, 1.5), "from -1 to 1, found 1.5"),
        (lambda v: community_detection(v, -2.0), "from -1 to 1, found -2.0"),
        (lambda v: community_detection(v, float("nan")), "from -1 to 1, found nan"),
    ],
)
def test_impossible_arguments_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call(some_vectors(20))


@pytest.mark.parametrize(
    "find", [lambda rows: semantic_search(rows[0], rows), lambda rows: paraphrase_mining(rows, 0.5), community_detection]
)
def test_a_row_that_is_not_finite_is_named(find):
    vectors = some_vectors(30)
    vectors[17, 3] = np.nan
    with pytest.raises(NonFiniteError, match="row 17: "):
        find(vectors)


def test_hard_negatives_are_near_and_no_answers():
    """By hand: what is nearer to the anchor than 95 % of its answer, and what is known as an answer, is no negative."""
    directions = {"질문": 0.0, "답": 20.0, "답 ": 20.0, "거의 답": 21.0, "비슷한 글": 40.0, "먼 글": 80.0, "또 다른 답": 45.0}

    class Angles:
        def encode(self, texts):
            angles = np.radians([directions[text] for text in texts])
            return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)

    pairs = (["질문", "질문"], ["답", "또 다른 답"])
    # cos 20° = 0.940, of which 95 % are 0.893 = cos 26.8°: "거의 답" (21°) is too near, "또 다른 답" (45°) an answer.
    found = mine_hard_negatives(*pairs, list(directions), Angles(), num_negatives=3)
    assert found[0] == ["비슷한 글", "먼 글"]
    # Of the answer at 45°, 0.707, 95 % are 0.672 = cos 47.8°.
    assert found[1] == ["먼 글"]


def test_a_model_finds_its_own_hard_negatives():
    anchors, positives = ["한 남자가 밥을 먹는다.", "치타가 들판을 달린다."], ["남자가 먹는다.", "치타가 달린다."]
    found = mine_hard_negatives(anchors, positives, [*anchors, *positives], tiny_model())
    for anchor, positive, negatives in zip(anchors, positives, found, strict=True):
        assert not {anchor, positive} & set(negatives)
