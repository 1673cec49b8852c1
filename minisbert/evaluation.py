"""The eight numbers by which sentence-embedding models are compared on KorSTS (and STS benchmark).

People have scored pairs of sentences from 0 (unrelated) to 5 (the same meaning). How well do the model's similarities follow
the scores? Pearson's r asks whether the points lie on a line, Spearman's ρ whether both have the same order. Each is computed
for cosine, dot product, Euclidean and Manhattan distance (negated, so that larger is more similar). Spearman is the one that is
quoted: what a search needs is the right order, and a model whose cosines all lie between 0.6 and 0.9 can be as good as one that
uses the whole range.

Checked against scipy (`pearsonr`, `spearmanr`) and sentence-transformers 6.2.0, `EmbeddingSimilarityEvaluator`.
Data: Ham et al. 2020, "KorNLI and KorSTS". Axis letters: see models/layers.py.

    python -m minisbert.evaluation --model jhgan/ko-sroberta-multitask --data sts-test.tsv
"""

import math
import warnings
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from minisbert.errors import InputError
from minisbert.similarity import similarity_pairwise

Numbers = npt.NDArray[np.float64]
FUNCTIONS = ("cosine", "euclidean", "manhattan", "dot")


class Model(Protocol):
    """What can be measured, such as a `SentenceEncoder`."""

    def encode(self, sentences: list[str], *, show_progress_bar: bool | None) -> Any:
        """Vectors (N, D), one for each text."""


def pearson(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Pearson's correlation coefficient of two lists of N numbers, -1 to 1; NaN if one of them is constant or N is 0.

    >>> round(pearson([1, 2, 3, 4], [2, 4, 6, 9]), 6)
    0.994377
    """
    u, v = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if len(u) == 0 or np.ptp(u) == 0 or np.ptp(v) == 0:  # asked before the mean is subtracted, because that is rounded
        return float("nan")
    u, v = u - u.mean(), v - v.mean()
    r = u @ v / (np.linalg.norm(u) * np.linalg.norm(v))
    return float(np.clip(r, -1, 1))  # rounding could exceed 1


def ranks(values: npt.ArrayLike) -> Numbers:
    """Ranks from 1 to N; equal values ("ties") share the mean of the ranks they take up.

    >>> ranks([10, 30, 20, 20]).tolist()
    [1.0, 4.0, 2.5, 2.5]
    """
    _, group, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)  # the rank of the last value of each group
    mean: Numbers = last - (counts - 1) / 2
    return mean[group]


def spearman(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Spearman's rank correlation: Pearson's of the ranks; -1 to 1.

    >>> round(spearman([1, 2, 3, 4], [1, 10, 100, 1000]), 6)
    1.0
    """
    return pearson(ranks(x), ranks(y))


class EmbeddingSimilarityEvaluator:
    """Measures a model on scored pairs of sentences; attributes as in `Evaluator` of training/evaluators.py."""

    task = "Semantic Similarity"
    table = "similarity_evaluation"
    shown: tuple[str, ...] = ("cosine_pearson", "cosine_spearman")

    def __init__(
        self,
        sentences1: Sequence[str],
        sentences2: Sequence[str],
        scores: Sequence[float],
        name: str = "",
        show_progress_bar: bool | None = False,
    ) -> None:
        if not len(sentences1) == len(sentences2) == len(scores) or len(scores) < 2:
            found = f"{len(sentences1)} first sentences, {len(sentences2)} second sentences, {len(scores)} scores"
            raise InputError(f"expected at least two pairs, each with a score; found {found}")
        self.sentences1 = list(sentences1)
        self.sentences2 = list(sentences2)
        try:
            self.scores = np.array(scores, dtype=np.float64)  # (N,)
        except (TypeError, ValueError):
            raise InputError("every score must be a number") from None
        if not np.isfinite(self.scores).all():
            raise InputError("every score must be a finite number")
        if np.ptp(self.scores) == 0:
            warnings.warn(f"all {len(scores)} scores are {self.scores[0]:g}: nothing correlates with a constant", stacklevel=2)
        self.name = name
        self.show_progress_bar = show_progress_bar  # None = on a terminal
        prefix = f"{name}_" if name else ""
        self.columns = {
            f"{function}_{correlation}": f"{prefix}{correlation}_{function}"
            for function in FUNCTIONS
            for correlation in ("pearson", "spearman")
        }

    def __call__(self, model: Model) -> dict[str, float]:
        """Encode both sides and correlate.

        Returns:
            The eight numbers, -1 to 1, under "{name}_{pearson|spearman}_{cosine|euclidean|manhattan|dot}" (without
            "{name}_" if the name is empty). NaN if the model gives all texts the same vector.
        """
        embeddings = model.encode(self.sentences1 + self.sentences2, show_progress_bar=self.show_progress_bar)
        a, b = np.split(embeddings.astype(np.float64), 2)  # (N, D) each
        result = {}
        for function in FUNCTIONS:
            similarities = similarity_pairwise(a, b, function).numpy()  # (N,)
            result[self.columns[f"{function}_pearson"]] = pearson(similarities, self.scores)
            result[self.columns[f"{function}_spearman"]] = spearman(similarities, self.scores)
        return result

    def main_score(self, result: dict[str, float]) -> float:
        """The number that picks the best model: the largest Spearman correlation.

        Not that of the cosine alone: sentence-transformers up to 3.2, which the published models were picked by, took the
        largest.

        A model that gives all texts the same vector has none (NaN), which counts as -1, the worst.
        """
        correlations = [result[self.columns[f"{function}_spearman"]] for function in FUNCTIONS]
        return max((value for value in correlations if not math.isnan(value)), default=-1.0)


if __name__ == "__main__":
    import sys

    from minisbert.cli.evaluate import main

    sys.exit(main())
