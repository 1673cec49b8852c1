"""Proves that search gives what sentence-transformers' util gives."""

import numpy as np
import pytest
import torch

from minisbert.search import community_detection, paraphrase_mining, semantic_search

pytestmark = pytest.mark.reference
ROWS, WIDTH = 20_000, 256


@pytest.fixture(scope="module")
def vectors():
    """Random, a fifth of them near another one."""
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(ROWS, WIDTH)).astype(np.float32)
    rows[: ROWS // 5] = rows[-ROWS // 5 :] + 0.5 * generator.normal(size=(ROWS // 5, WIDTH))
    return rows


@pytest.mark.parametrize("chunk", [100, 4096, ROWS])
def test_semantic_search(vectors, chunk):
    from sentence_transformers import util

    expected = util.semantic_search(torch.from_numpy(vectors[:50]), torch.from_numpy(vectors), top_k=10)
    for ours, theirs in zip(semantic_search(vectors[:50], vectors, 10, corpus_chunk_size=chunk), expected, strict=True):
        assert [hit["corpus_id"] for hit in ours] == [hit["corpus_id"] for hit in theirs]
        np.testing.assert_allclose([hit["score"] for hit in ours], [hit["score"] for hit in theirs], atol=1e-6)


def test_paraphrase_mining(vectors):
    from sentence_transformers import util

    theirs = util.paraphrase_mining_embeddings(torch.from_numpy(vectors), max_pairs=50_000, top_k=100)
    theirs = {(i, j): score for score, i, j in theirs if score >= 0.7}
    ours = {(i, j): score for score, i, j in paraphrase_mining(vectors, 0.7)}
    assert len(ours) > 1000
    assert ours.keys() == theirs.keys()
    np.testing.assert_allclose([ours[pair] for pair in theirs], list(theirs.values()), atol=1e-6)


def test_community_detection(vectors):
    from sentence_transformers import util

    theirs = util.community_detection(torch.from_numpy(vectors), threshold=0.7, min_community_size=2)
    ours = community_detection(vectors, 0.7)
    assert len(ours) > 1000
    assert sorted(map(sorted, ours)) == sorted(map(sorted, theirs))
