"""Hard negatives: texts that a model takes for an answer and that are none, to train it on.

The nearest texts of a question are the best wrong answers to learn from, and often they are no wrong answers at all but right
ones that nobody has written down. To learn from those does harm. So a negative may have at most 95 % of the similarity that the
known answer has: what is nearer is taken for an answer too.

Paper: de Souza P. Moreira et al. 2024, "NV-Retriever", section 4 (its method TopK-PercPos with 95 %). Compared with
sentence-transformers 6.2.0, `util.mine_hard_negatives`.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from minisbert.errors import InputError
from minisbert.search.nearest import ROWS_AT_ONCE, Nearest, as_tensor, blocks
from minisbert.similarity import similarity_pairwise


class Model(Protocol):
    """What can turn texts into vectors, such as a `SentenceEncoder`."""

    def encode(self, sentences: list[str], /) -> Any:
        """N texts to float32 (N, D)."""


def mine_hard_negatives(
    anchors: Sequence[str],
    positives: Sequence[str],
    corpus: Sequence[str],
    model: Model,
    *,
    num_negatives: int = 1,
    margin: float = 0.95,
) -> list[list[str]]:
    """Find, for each pair, the texts of a corpus that are nearest to the anchor and are not an answer to it.

    Left out are the anchor itself, all texts that it is paired with in any pair, and texts equal to them except for case and
    surrounding white space.

    Args:
        anchors: N texts, questions for example.
        positives: N texts that belong to them.
        corpus: texts to choose from; equal ones count once. The positives themselves will do.
        model: compares the texts, by their cosine.
        num_negatives: how many to find for a pair.
        margin: share of the positive's cosine that a negative's cosine may reach, 0 to 1.

    Returns:
        For each pair up to `num_negatives` texts, the nearest first; fewer, or none, where no other text is far enough.

    Raises:
        InputError: there are not as many positives as anchors, or a number is impossible.
    """
    if len(anchors) != len(positives):
        raise InputError(f"each anchor needs one positive, found {len(anchors)} anchors and {len(positives)} positives")
    if num_negatives < 1 or not 0 <= margin <= 1:
        raise InputError(f"expected at least 1 negative and a margin from 0 to 1, found {num_negatives} and {margin}")
    known: dict[str, set[str]] = {}
    for pair in zip(map(_key, anchors), map(_key, positives), strict=True):
        for text in pair:
            known.setdefault(text, set()).update(pair)
    candidates = list({_key(text): text for text in reversed(corpus)}.values())[::-1]
    vectors = model.encode(candidates)  # (number of candidates, D)
    anchor_vectors, positive_vectors = model.encode(list(anchors)), model.encode(list(positives))  # (N, D)
    cosine = similarity_pairwise(anchor_vectors, positive_vectors)  # (N,)
    ceiling = cosine - (1 - margin) * cosine.abs()  # below the positive, also where its cosine is negative
    negatives = []
    for begin in range(0, len(anchors), ROWS_AT_ONCE):
        part = slice(begin, begin + ROWS_AT_ONCE)
        not_wanted = [known[_key(anchor)] for anchor in anchors[part]]
        enough = num_negatives + max(map(len, not_wanted))
        nearest = Nearest(as_tensor(anchor_vectors[part]), enough, at_most=ceiling[part])
        for block in blocks(vectors, ROWS_AT_ONCE):
            nearest.add(block)
        for hits, keys in zip(nearest.hits(), not_wanted, strict=True):
            texts = [candidates[hit["corpus_id"]] for hit in hits]
            negatives.append([text for text in texts if _key(text) not in keys][:num_negatives])
    return negatives


def _key(text: str) -> str:
    """What texts have in common that count as equal; `NoDuplicatesBatches` compares so too."""
    return text.strip().lower()
