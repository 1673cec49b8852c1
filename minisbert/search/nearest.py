"""The nearest vectors, exactly: every query is compared with every row, block by block, so that memory does not grow with N.

A product of two matrices is the fastest way to compare many vectors, but its last digits depend on the shapes of the matrices:
two equal rows may get scores that differ by 1e-7. So the products, in float32, only choose candidates, with a margin for what
rounding may do to them. The score of a candidate is then computed from its two vectors alone, in float64. Equal vectors have
equal scores, of which the smaller row number comes first, and no result depends on the size of the blocks.

Checked against sentence-transformers 6.2.0, `util.semantic_search`. Axis letters: Q queries, N rows of the corpus, D width,
B queries and n rows of the corpus that are compared at a time.
"""

import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from minisbert.errors import InputError, NonFiniteError
from minisbert.similarity import similarity, similarity_pairwise

ROWS_AT_ONCE = 65536  # of a corpus; what is mapped from a file takes no memory
SCORES_AT_ONCE = 1 << 24  # of a matrix of products
PAIRS_AT_ONCE = 1 << 18  # numbers of the vectors whose scores are computed pair by pair; so many stay in a cache
# More than rounding can do to the product of two vectors of length 1 in float32: about 1e-6 for a thousand columns.
ROUNDING = 1e-5


class Vectors(Protocol):
    """Rows of numbers: an array, an array mapped from a file, a tensor, or whatever gives such for a slice of its rows."""

    @property
    def shape(self) -> Sequence[int]:
        """(N, D)."""

    def __getitem__(self, rows: slice, /) -> Any:
        """Some neighbouring rows (n, D)."""


def semantic_search(
    queries: npt.ArrayLike | Vectors,
    corpus: npt.ArrayLike | Vectors,
    top_k: int = 10,
    *,
    corpus_chunk_size: int = ROWS_AT_ONCE,
    function: str = "cosine",
) -> list[list[dict[str, Any]]]:
    """Find the rows of a corpus that are most similar to each query.

    Args:
        queries: (Q, D), or (D,) for one query.
        corpus: (N, D); an array, also one that is mapped from a file, or a tensor. On a GPU if one of the two is there.
        top_k: how many rows for each query, at least 1; all if there are fewer.
        corpus_chunk_size: rows that are compared at a time; results do not depend on it.
        function: "cosine", "dot", "euclidean" or "manhattan" (distances are negated).

    Returns:
        For each query a list of {"corpus_id": row from 0, "score": float}, best first; of equal scores the smaller row first.

    Raises:
        InputError: shapes do not belong together, or `top_k` is too small.
        NonFiniteError: a vector is NaN or infinite; the message names its row.

    >>> semantic_search([[1.0, 0.0]], [[0.0, 2.0], [3.0, 0.0], [1.0, 0.0]], top_k=2)
    [[{'corpus_id': 1, 'score': 1.0}, {'corpus_id': 2, 'score': 1.0}]]
    """
    asked, rows = as_rows(queries), as_rows(corpus)
    device = rows.device if isinstance(rows, Tensor) else asked.device if isinstance(asked, Tensor) else "cpu"
    nearest = Nearest(as_tensor(asked[:], device), top_k, function)
    for block in blocks(rows, corpus_chunk_size, device=device):
        nearest.add(block)
    return nearest.hits()


class Nearest:
    """The nearest rows, for each of Q queries, of a corpus that comes block by block.

    Attributes:
        scores: (Q, width) float32, best first, -inf where there are fewer; width grows up to `top_k`.
        rows: (Q, width) int64, the rows that have these scores.
        seen: how many rows have come.
    """

    def __init__(
        self,
        queries: Tensor,
        top_k: int,
        function: str = "cosine",
        at_least: float = -math.inf,
        at_most: Tensor | None = None,
    ) -> None:
        """Prepare the search for the queries (Q, D), float32; scores below `at_least` or above `at_most` (Q,) do not count."""
        if top_k < 1:
            raise InputError(f"top_k must be at least 1, found {top_k}")
        self.lengths = finite_lengths(queries, "query")  # (Q,)
        self.queries = F.normalize(queries, dim=-1) if function == "cosine" else queries
        self.top_k, self.function = top_k, function
        self.at_least = at_least
        self.at_most = at_most
        self.scores = torch.empty(len(queries), 0)
        self.rows = torch.empty(len(queries), 0, dtype=torch.int64)
        self.seen = 0

    @torch.inference_mode()
    def add(self, block: Tensor) -> None:
        """Compare the queries with the next rows of the corpus, (n, D) float32."""
        lengths = finite_lengths(block, "row", self.seen)  # (n,)
        if block.shape[1] != self.queries.shape[1] and len(self.queries):
            raise InputError(f"the queries have {self.queries.shape[1]} columns, the corpus has {block.shape[1]}")
        cosine, many = self.function == "cosine", len(self.queries) > block.shape[1]
        rows = F.normalize(block, dim=-1) if cosine and many else block  # fewer numbers to divide than the scores are
        at_once = max(1, SCORES_AT_ONCE // max(1, len(block)))
        for begin in range(0, len(self.queries) if len(block) else 0, at_once):
            part = slice(begin, begin + at_once)
            if self.function in ("cosine", "dot"):
                scores = products(self.queries[part], rows)  # (B, n)
                error = ROUNDING * self.lengths[part, None] * lengths.max()  # (B, 1)
                if cosine:
                    scores = scores if many else scores.div_(lengths.clamp_min(1e-12))
                    error = torch.full_like(error, ROUNDING)
            else:
                scores = similarity(self.queries[part], block, self.function).to(block.device)
                error = ROUNDING * scores.abs().amax(1, keepdim=True)
            if self.at_most is not None:
                scores.masked_fill_(scores > self.at_most[part, None].to(block.device) + error, -math.inf)
            self._choose(part, block, scores, error, self.seen)
        self.seen += len(block)

    def hits(self) -> list[list[dict[str, Any]]]:
        """The result, as `semantic_search` gives it."""
        return [
            [{"corpus_id": row, "score": score} for row, score in zip(rows, scores, strict=True) if score > -math.inf]
            for rows, scores in zip(self.rows.tolist(), self.scores.tolist(), strict=True)
        ]

    def _choose(self, part: slice, block: Tensor, scores: Tensor, error: Tensor, first_row: int) -> None:
        """Find the rows of the block that may be among the nearest, by their products (B, n), and enter them."""
        cutoff = self._cutoff(part).to(block.device) - error  # (B, 1)
        candidates = (scores >= cutoff).cpu()
        if too_many(candidates, self.top_k):
            # What is below the k-th of this block is not among the k nearest of all rows either.
            cutoff = torch.maximum(cutoff, scores.topk(self.top_k).values[:, -1:] - 2 * error)
            candidates = (scores >= cutoff).cpu()
        if too_many(candidates, self.top_k):
            # Many rows are alike: the first half of them may show that the second is not needed.
            middle = scores.shape[1] // 2
            for half in (slice(0, middle), slice(middle, None)):
                self._choose(part, block[half], scores[:, half], error, first_row + half.start)
            return
        query, row = places(candidates)  # (pairs,)
        exact = exact_scores(self.queries[part], block, query, row, self.function)  # (pairs,)
        kept = exact >= self.at_least
        if self.at_most is not None:
            kept &= exact <= self.at_most[part][query]
        self._enter(part.start + query[kept], first_row + row[kept], exact[kept])

    def _cutoff(self, part: slice) -> Tensor:
        """(B, 1): a later row needs more than this score to be among the nearest."""
        if self.scores.shape[1] < self.top_k:
            return torch.full((len(self.scores[part]), 1), self.at_least)
        worst = self.scores[part, -1:]
        if self.function == "cosine":  # no later row can be better than 1, and the earlier of equals comes first
            worst = worst.masked_fill(worst >= 1, math.inf)
        return worst.clamp_min(self.at_least)

    def _enter(self, query: Tensor, row: Tensor, score: Tensor) -> None:
        """Enter pairs, sorted by query and then by row, all of whose rows come after those entered before."""
        queries, index, counts = query.unique_consecutive(return_inverse=True, return_counts=True)
        if not len(queries):
            return
        longest = int(counts.max())
        width = min(self.top_k, self.scores.shape[1] + longest)
        grow = (0, width - self.scores.shape[1])
        self.scores, self.rows = F.pad(self.scores, grow, value=-math.inf), F.pad(self.rows, grow)
        column = torch.arange(len(query)) - (counts.cumsum(0) - counts)[index]
        scores = torch.full((len(queries), longest), -math.inf)
        rows = torch.zeros((len(queries), longest), dtype=torch.int64)
        scores[index, column], rows[index, column] = score, row
        # A stable sort leaves the earlier of equals, which has the smaller row number, in front.
        scores, order = torch.cat([self.scores[queries], scores], 1).sort(dim=1, descending=True, stable=True)
        self.scores[queries] = scores[:, :width]
        self.rows[queries] = torch.cat([self.rows[queries], rows], 1).gather(1, order[:, :width])


def as_rows(vectors: npt.ArrayLike | Vectors) -> Any:
    """The same vectors as rows: a single vector (D,) becomes (1, D), a list an array, no vectors (0, 1)."""
    found: Any = vectors if hasattr(vectors, "shape") else np.asarray(vectors, dtype=np.float32)
    if len(found.shape) == 1:
        found = found[None] if found.shape[0] else found[:, None]
    if len(found.shape) != 2:
        raise InputError(f"expected vectors as rows, (N, D), found the shape {tuple(found.shape)}")
    return found


def blocks(vectors: Vectors, rows: int, begin: int = 0, device: Any = None) -> Iterator[Tensor]:
    """The rows from `begin` on, so many at a time, see `as_tensor`; no vectors are one block without rows."""
    if rows < 1:
        raise InputError(f"at least 1 row must be compared at a time, found {rows}")
    for first in range(begin, max(vectors.shape[0], begin + 1), rows):
        yield as_tensor(vectors[first : first + rows], device)


def as_tensor(rows: npt.NDArray[Any] | Tensor, device: Any = None) -> Tensor:
    """Rows (n, D) as float32, on this device; None = where they are."""
    if not isinstance(rows, Tensor):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of writing to an array that is read-only, which nobody does
            rows = torch.from_numpy(np.ascontiguousarray(rows, dtype=np.float32))
    return rows.detach().to(device, torch.float32)


def finite_lengths(vectors: Tensor, what: str, first_row: int = 0) -> Tensor:
    """The length of every vector, (n,); a `NonFiniteError` that names the row if there is NaN or infinity in one."""
    lengths = torch.linalg.vector_norm(vectors, dim=1)
    if not bool(torch.isfinite(lengths).all()):
        bad = first_row + int(torch.isfinite(lengths).logical_not().nonzero()[0])
        raise NonFiniteError(f"the vector of this {what} is NaN, infinite or too large", row=bad)
    return lengths


def too_many(candidates: Tensor, top_k: int) -> bool:
    """Whether it is worth some work to have fewer candidates (B, n) for the `top_k` rows of each query."""
    most = 2 * top_k + 8
    return candidates.shape[1] > most and int(np.count_nonzero(candidates)) > most * len(candidates)


def products(queries: Tensor, rows: Tensor) -> Tensor:
    """The product of each query (B, D) with each row (n, D): (B, n).

    For some hundred queries or less, the other order of the factors is up to four times as fast on some processors, and two
    queries take less time than one.
    """
    if len(queries) > rows.shape[1]:
        return queries @ rows.T
    asked = queries.repeat(2, 1) if len(queries) == 1 else queries
    return (rows @ asked.T).T[: len(queries)].contiguous()


def places(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column of each True in a matrix (n, m), row by row, on the CPU: `mask.nonzero()` in less time."""
    row, column = divmod(np.flatnonzero(mask.cpu()), max(1, mask.shape[1]))
    return torch.from_numpy(row), torch.from_numpy(column)


def exact_scores(a: Tensor, b: Tensor, i: Tensor, j: Tensor, function: str = "cosine") -> Tensor:
    """Compare row i[p] of `a` with row j[p] of `b` for every pair p: float32 (P,) on the CPU, from the two vectors alone."""
    at_once = max(1, PAIRS_AT_ONCE // max(1, a.shape[1]))
    found = [torch.empty(0)]
    for first, second in zip(i.split(at_once), j.split(at_once), strict=True):
        left, right = a[first].double(), b[second].double()  # (P, D)
        if function == "cosine":
            squares = (left * left).sum(-1) * (right * right).sum(-1)
            cosine = (left * right).sum(-1) / squares.sqrt().clamp_min(1e-24)  # that of a zero vector is 0
            found.append(cosine.float().clamp(-1, 1).cpu())
        else:
            found.append(similarity_pairwise(left, right, function).float())
    return torch.cat(found)
