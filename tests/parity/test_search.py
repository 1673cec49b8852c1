"""Proves that search gives what sentence-transformers' util gives."""

from pathlib import Path

import numpy as np
import pytest
import torch

from minisbert import SentenceEncoder
from minisbert.cli.shared import default_model
from minisbert.search import community_detection, paraphrase_mining, semantic_search
from tests.benchmarks.models import korsts_sentences

pytestmark = pytest.mark.reference
SHARED = Path(__file__).resolve().parents[3] / "shared"
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


@pytest.fixture(scope="module")
def korsts():
    """Vectors of the first 3,000 distinct sentences of KorSTS, by the small model that comes along."""
    folder = SHARED / "data" / "kor-nlu-datasets" / "KorSTS"
    if not folder.exists():
        pytest.skip("no KorSTS here")
    model = SentenceEncoder.from_pretrained(default_model(), device="cpu")
    return model.encode(korsts_sentences(folder, 3000), show_progress_bar=False)


@pytest.mark.parametrize("chunk", [100, 4096])
def test_real_vectors(korsts, chunk):
    from sentence_transformers import util

    vectors = torch.from_numpy(korsts)
    expected = util.semantic_search(vectors[:100], vectors, top_k=10)
    for ours, theirs in zip(semantic_search(korsts[:100], korsts, 10, corpus_chunk_size=chunk), expected, strict=True):
        np.testing.assert_allclose([hit["score"] for hit in ours], [hit["score"] for hit in theirs], atol=1e-6)
        # Rows whose scores differ by less than rounding may stand in another order.
        clear = [hit["corpus_id"] for hit in theirs if hit["score"] > theirs[-1]["score"] + 2e-6]
        assert set(clear) <= {hit["corpus_id"] for hit in ours}
    pairs = {(i, j): score for score, i, j in util.paraphrase_mining_embeddings(vectors) if score >= 0.8}
    found = {(i, j): score for score, i, j in paraphrase_mining(korsts, 0.8, corpus_chunk_size=chunk)}
    assert len(found) > 100
    assert found.keys() == pairs.keys()
    np.testing.assert_allclose([found[pair] for pair in pairs], list(pairs.values()), atol=1e-6)
    groups = community_detection(korsts, 0.75, batch_size=chunk)
    theirs = util.community_detection(vectors, threshold=0.75, min_community_size=2)
    assert len(groups) > 100
    assert [set(group) for group in groups] == [set(group) for group in theirs]
