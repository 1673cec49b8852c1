"""How good is a model at finding? Three measures of what search, triplets and "the same or not" ask of it, all by the cosine.

Checked against sentence-transformers 6.2.0: `InformationRetrievalEvaluator`, `TripletEvaluator` and
`BinaryClassificationEvaluator`. Their results have the same names; every number goes from 0 to 1, except that a threshold is a
cosine and Matthews' correlation (mcc) begins at -1. Axis letters: Q queries, N pairs.

Retrieval: Manning et al. 2008, "Introduction to Information Retrieval", chapter 8; nDCG: Järvelin and Kekäläinen 2002.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from minisbert.errors import InputError
from minisbert.search.nearest import semantic_search
from minisbert.similarity import similarity_pairwise

DEPTH = 100  # hits that are looked at
CUTS = (1, 3, 5, 10)
RETRIEVAL = (
    *(f"{metric}@{cut}" for metric in ("accuracy", "precision", "recall") for cut in CUTS),
    *("mrr@10", "ndcg@10", "map@100"),
)
BINARY = ("accuracy", "accuracy_threshold", "f1", "f1_threshold", "precision", "recall", "ap", "mcc")


class Model(Protocol):
    """What can be measured, such as a `SentenceEncoder`: texts to vectors (N, D)."""

    def encode(self, sentences: list[str], *, show_progress_bar: bool | None) -> Any:
        """Of texts that are compared with their like."""

    def encode_query(self, sentences: list[str], *, show_progress_bar: bool | None) -> Any:
        """Of texts that ask."""

    def encode_document(self, sentences: list[str], *, show_progress_bar: bool | None) -> Any:
        """Of texts that answer."""


class _ByCosine:
    """What the evaluators share."""

    shown: tuple[str, ...]  # columns of the numbers by which models are compared; the first picks the best model
    columns: dict[str, str]  # column of a table -> key of the result

    def __init__(self, metrics: Sequence[str], name: str, show_progress_bar: bool | None) -> None:
        self.name = name
        self.show_progress_bar = show_progress_bar  # None = on a terminal
        prefix = f"{name}_" if name else ""
        self.columns = {f"cosine_{metric}": f"{prefix}cosine_{metric}" for metric in metrics}

    def main_score(self, result: dict[str, float]) -> float:
        """The number that picks the best model."""
        return result[self.columns[self.shown[0]]]

    def named(self, metrics: Sequence[float]) -> dict[str, float]:
        """The result, from the numbers in the order of the columns."""
        return dict(zip(self.columns.values(), metrics, strict=True))


class InformationRetrievalEvaluator(_ByCosine):
    """For each query, how near the top of the corpus its relevant texts come.

    With one relevant text a query, found in place r: accuracy@k says whether r <= k, MRR is 1 / r, nDCG 1 / log2(1 + r).
    """

    task = "Information Retrieval"
    table = "Information-Retrieval_evaluation"
    shown: tuple[str, ...] = ("cosine_ndcg@10", "cosine_mrr@10")

    def __init__(
        self,
        queries: Mapping[str, str],
        corpus: Mapping[str, str],
        relevant_docs: Mapping[str, Collection[str]],
        name: str = "",
        show_progress_bar: bool | None = False,
    ) -> None:
        """Take texts by their ids; a query of which `relevant_docs` names no text of the corpus is an InputError.

        Queries that `relevant_docs` does not name are left out.
        """
        super().__init__(RETRIEVAL, name, show_progress_bar)
        self.ids = sorted(corpus)  # equal cosines come in this order
        self.corpus = [corpus[key] for key in self.ids]
        asked = [key for key in queries if relevant_docs.get(key)]
        self.queries = [queries[key] for key in asked]
        self.relevant = [set(relevant_docs[key]) for key in asked]
        if not asked:
            raise InputError("no query has a relevant text: expected relevant_docs to name texts of the corpus by query")
        for key, relevant in zip(asked, self.relevant, strict=True):
            if not relevant <= corpus.keys():
                missing = sorted(relevant - corpus.keys())[0]
                raise InputError(f"the query {key!r:.60} has the relevant text {missing!r:.60}, which is not in the corpus")

    def __call__(self, model: Model) -> dict[str, float]:
        """Encode, search and count: the numbers of `RETRIEVAL` under "{name}_cosine_mrr@10", ..."""
        queries = model.encode_query(self.queries, show_progress_bar=self.show_progress_bar)
        corpus = model.encode_document(self.corpus, show_progress_bar=self.show_progress_bar)
        found = np.zeros((len(self.queries), DEPTH), dtype=bool)  # whether the hit in this place is relevant
        for query, hits in enumerate(semantic_search(queries, corpus, DEPTH)):
            found[query, : len(hits)] = [self.ids[hit["corpus_id"]] in self.relevant[query] for hit in hits]
        counts = np.array([len(relevant) for relevant in self.relevant])
        return self.named(retrieval_metrics(found, counts))


def retrieval_metrics(found: npt.NDArray[Any], counts: npt.NDArray[Any]) -> list[float]:
    """The numbers of `RETRIEVAL`, each the mean over the queries.

    Args:
        found: (Q, `DEPTH`) bool, whether the hit in each place is relevant.
        counts: (Q,) at least 1, how many texts are relevant.

    >>> found = np.zeros((1, 100), dtype=bool)
    >>> found[0, [1, 3]] = True  # two of three relevant texts, in the second and the fourth place
    >>> dict(zip(RETRIEVAL, retrieval_metrics(found, np.array([3]))))["mrr@10"]
    0.5
    """
    places = np.arange(1, DEPTH + 1)
    metrics = [found[:, :cut].any(1) for cut in CUTS]
    metrics += [found[:, :cut].sum(1) / cut for cut in CUTS]
    metrics += [found[:, :cut].sum(1) / counts for cut in CUTS]
    metrics += [(found / places)[:, :10].max(1)]
    gains = 1 / np.log2(1 + places[:10])
    metrics += [found[:, :10] @ gains / gains.cumsum()[counts.clip(max=10) - 1]]  # divided by that of the best order
    precisions = found.cumsum(1) / places  # (Q, DEPTH)
    metrics += [(precisions * found).sum(1) / counts.clip(max=DEPTH)]
    return [float(metric.mean()) for metric in metrics]


class TripletEvaluator(_ByCosine):
    """How often an anchor is more similar to its positive than to its negative."""

    task = "Triplet"
    table = "triplet_evaluation"
    shown: tuple[str, ...] = ("cosine_accuracy",)

    def __init__(
        self,
        anchors: Sequence[str],
        positives: Sequence[str],
        negatives: Sequence[str],
        name: str = "",
        show_progress_bar: bool | None = False,
    ) -> None:
        super().__init__(["accuracy"], name, show_progress_bar)
        if not len(anchors) == len(positives) == len(negatives) or not len(anchors):
            found = f"{len(anchors)} anchors, {len(positives)} positives, {len(negatives)} negatives"
            raise InputError(f"expected at least one anchor, each with a positive and a negative; found {found}")
        self.anchors, self.positives, self.negatives = list(anchors), list(positives), list(negatives)

    def __call__(self, model: Model) -> dict[str, float]:
        """Encode and compare: the share of triplets in the right order, under "{name}_cosine_accuracy"."""
        anchors = model.encode_query(self.anchors, show_progress_bar=self.show_progress_bar)
        others = model.encode_document(self.positives + self.negatives, show_progress_bar=self.show_progress_bar)
        near, far = (similarity_pairwise(anchors, side.astype(np.float64)) for side in np.split(others, 2))  # (N,)
        return self.named([float((near > far).double().mean())])


class BinaryClassificationEvaluator(_ByCosine):
    """How well a threshold on the cosine tells pairs that mean the same (label 1) from pairs that do not (0).

    The average precision (ap) looks at all thresholds, the others at their best one. Matthews' correlation is that at the
    threshold of F1.
    """

    task = "Binary Classification"
    table = "binary_classification_evaluation"
    shown: tuple[str, ...] = ("cosine_ap", "cosine_f1")

    def __init__(
        self,
        sentences1: Sequence[str],
        sentences2: Sequence[str],
        labels: Sequence[int],
        name: str = "",
        show_progress_bar: bool | None = False,
    ) -> None:
        super().__init__(BINARY, name, show_progress_bar)
        if not len(sentences1) == len(sentences2) == len(labels):
            found = f"{len(sentences1)} first sentences, {len(sentences2)} second sentences, {len(labels)} labels"
            raise InputError(f"expected pairs, each with a label; found {found}")
        if {*labels} != {0, 1}:
            raise InputError("expected labels of both kinds, 0 and 1, and no other")
        self.sentences1, self.sentences2 = list(sentences1), list(sentences2)
        self.labels = np.array(labels, dtype=np.int64)  # (N,)

    def __call__(self, model: Model) -> dict[str, float]:
        """Encode and try all thresholds: the numbers of `BINARY` under "{name}_cosine_ap", ..."""
        vectors = model.encode(self.sentences1 + self.sentences2, show_progress_bar=self.show_progress_bar)
        a, b = np.split(vectors, 2)
        return self.named(binary_metrics(similarity_pairwise(a, b).numpy(), self.labels))


def binary_metrics(scores: npt.NDArray[Any], labels: npt.NDArray[Any]) -> list[float]:
    """The numbers of `BINARY`.

    Args:
        scores: (N,), larger for pairs that mean the same.
        labels: (N,), 1 or 0, of both at least one.

    >>> dict(zip(BINARY, binary_metrics(np.array([0.9, 0.7, 0.5, 0.1]), np.array([1, 0, 1, 0]))))["f1"]
    0.8
    """
    order = np.argsort(-scores, kind="stable")
    scores = scores[order]
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))  # of each group of equal scores, (thresholds,)
    said_same = last + 1  # how many pairs a threshold below each group takes for the same
    right = np.cumsum(labels[order])[last]  # and how many of them are
    same, total = int(labels.sum()), len(labels)
    below = np.append(scores[last[1:]], scores[-1])
    middles = (scores[last] + below) / 2
    middles = np.where(middles == below, scores[last], middles)  # rounded down, it would take in the next group

    precision, recall = right / said_same, right / same
    f1 = 2 * right / (said_same + same)
    best = int(f1.argmax())
    accuracy = np.append(total - same, 2 * right + total - same - said_same) / total  # the first: no pair is the same
    most = int(accuracy.argmax())
    threshold = np.append(np.nextafter(scores[0], np.inf, dtype=scores.dtype), middles)[most]
    average_precision = np.diff(recall, prepend=0) @ precision
    mcc = _matthews(right[best], said_same[best] - right[best], same, total)
    metrics = (accuracy[most], threshold, f1[best], middles[best], precision[best], recall[best], average_precision, mcc)
    return [float(metric) for metric in metrics]


def _matthews(hits: int, false_hits: int, same: int, total: int) -> float:
    """Pearson's correlation of "is the same" and "is said to be": 0 if all or no pairs are said to be."""
    missed, rejected = same - hits, total - same - false_hits
    product = float(hits + false_hits) * (hits + missed) * (rejected + false_hits) * (rejected + missed)
    return (float(hits) * rejected - float(false_hits) * missed) / product**0.5 if product else 0.0
