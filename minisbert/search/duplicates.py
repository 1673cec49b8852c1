"""Pairs of texts that mean the same, out of all pairs.

Checked against sentence-transformers 6.2.0, `util.paraphrase_mining_embeddings`: these are its pairs, from a threshold on.
"""

import numpy as np
import numpy.typing as npt

from minisbert.errors import InputError
from minisbert.search.nearest import ROWS_AT_ONCE, Nearest, Vectors, as_rows, as_tensor, blocks


def paraphrase_mining(
    embeddings: npt.ArrayLike | Vectors,
    threshold: float,
    *,
    top_k: int = 100,
    max_pairs: int = 500_000,
    corpus_chunk_size: int = ROWS_AT_ONCE,
) -> list[tuple[float, int, int]]:
    """Find the pairs of rows whose cosine is at least a threshold.

    A thousand texts that are all alike have half a million pairs. So each text is paired with its `top_k` nearest at most, and
    the output grows with N, not with N².

    Args:
        embeddings: (N, D); an array, also one that is mapped from a file, or a tensor.
        threshold: cosine, -1 to 1.
        top_k: so many neighbours of each row are looked at.
        max_pairs: so many pairs, the best ones, are returned at most.
        corpus_chunk_size: rows that are compared at a time; results do not depend on it.

    Returns:
        (score, i, j) with i < j, best first; pairs of equal score by their rows.

    Raises:
        InputError: an argument has an impossible value.
        NonFiniteError: a vector is NaN or infinite; the message names its row.

    >>> paraphrase_mining([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]], threshold=0.9)
    [(1.0, 0, 2)]
    """
    check_threshold(threshold)
    vectors = as_rows(embeddings)
    count = vectors.shape[0]
    keys, scores = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)  # a pair is known by i * N + j
    for begin in range(0, count, ROWS_AT_ONCE):
        queries = as_tensor(vectors[begin : begin + ROWS_AT_ONCE])
        nearest = Nearest(queries, top_k + 1, at_least=threshold)  # one more: each row is its own nearest
        for block in blocks(vectors, corpus_chunk_size):
            nearest.add(block)
        rows = nearest.rows.numpy()
        own = np.arange(begin, begin + len(rows))[:, None]
        other = (rows != own) & np.isfinite(nearest.scores.numpy())
        query, column = np.nonzero(other & (other.cumsum(1) <= top_k))
        first, second = query + begin, rows[query, column]
        keys = np.concatenate([keys, np.minimum(first, second) * count + np.maximum(first, second)])
        scores = np.concatenate([scores, nearest.scores.numpy()[query, column]])
        keys, index = np.unique(keys, return_index=True)  # most pairs are found from both sides
        best = np.argsort(-scores[index], kind="stable")[:max_pairs]
        keys, scores = keys[best], scores[index][best]
    return list(zip(scores.tolist(), (keys // count).tolist(), (keys % count).tolist(), strict=True)) if count else []


def check_threshold(threshold: float) -> None:
    """Refuse a threshold that no cosine can have."""
    if not -1 <= threshold <= 1:
        raise InputError(f"the threshold is a cosine, from -1 to 1, found {threshold}")
