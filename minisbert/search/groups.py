"""Groups of texts that are alike.

A row and all rows whose cosine with it is at least the threshold are a group around it. The largest group is taken first, and
its rows are taken out of all others. Two rows of a group may be less alike than the threshold: both are near its centre.

Checked against sentence-transformers 6.2.0, `util.community_detection`, which keeps all groups at a time: N² numbers if all
texts are alike. Here the rows are counted first, and groups are found again, largest first, for rows that are still free.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from minisbert.errors import InputError
from minisbert.search.duplicates import check_threshold
from minisbert.search.nearest import ROUNDING, Vectors, as_rows, as_tensor, blocks, exact_scores, finite_lengths, places

ROWS_AT_ONCE = 4096  # compared with as many
SCORES_AT_ONCE = 1 << 22  # if all are alike, each of them becomes a pair of row numbers
CENTRES_AT_ONCE, MEMBERS_AT_ONCE = 1024, 1 << 20  # groups that are found at a time, and what they may hold together


@torch.inference_mode()
def community_detection(
    embeddings: npt.ArrayLike | Vectors,
    threshold: float = 0.75,
    min_community_size: int = 2,
    *,
    batch_size: int = ROWS_AT_ONCE,
) -> list[list[int]]:
    """Find groups of rows that are alike; no row is in two of them.

    Args:
        embeddings: (N, D); an array, also one that is mapped from a file, or a tensor.
        threshold: cosine that a row must have with the centre of its group, -1 to 1.
        min_community_size: smaller groups are left out.
        batch_size: rows that are compared at a time; results do not depend on it.

    Returns:
        Lists of row numbers, largest first: the centre, then the others, those nearest to the centre first.

    Raises:
        InputError: an argument has an impossible value.
        NonFiniteError: a vector is NaN or infinite; the message names its row.

    >>> community_detection([[1.0, 0.0], [0.0, 1.0], [0.9, 0.1], [1.0, 0.1]], threshold=0.9)
    [[0, 3, 2]]
    """
    check_threshold(threshold)
    if min_community_size < 1:
        raise InputError(f"a group has at least 1 row, found {min_community_size}")
    vectors = as_rows(embeddings)
    sizes = _sizes(vectors, threshold, batch_size)
    order = np.argsort(-sizes, kind="stable")  # (N,), of equal sizes the smaller row first
    order = order[sizes[order] >= min_community_size]
    free = sizes >= min(2, min_community_size)  # (N,), not in a group yet, and not alone
    groups = []
    while len(order := order[free[order]]):
        at_once = max(1, int(np.searchsorted(sizes[order[:CENTRES_AT_ONCE]].cumsum(), MEMBERS_AT_ONCE)))
        centres, order = order[:at_once], order[at_once:]
        for centre, members in zip(centres.tolist(), _members(vectors, centres, threshold, batch_size, free), strict=True):
            members = members[free[members]]
            if free[centre] and len(members) >= min_community_size:
                groups.append([centre, *members[members != centre].tolist()])
                free[groups[-1]] = False
    return sorted(groups, key=len, reverse=True)


def _sizes(embeddings: Vectors, threshold: float, batch_size: int) -> npt.NDArray[np.int64]:
    """How many rows, itself included, are alike to each row: (N,). Each pair of blocks is compared once."""
    count = embeddings.shape[0]
    sizes = np.zeros(count, dtype=np.int64)
    for begin in range(0, count, batch_size):
        rows = _unit(as_tensor(embeddings[begin : begin + batch_size]), begin)
        for other, block in zip(range(begin, count, batch_size), blocks(embeddings, batch_size, begin), strict=True):
            for i, j in _alike(rows, rows if other == begin else _unit(block, other), threshold):
                sizes[begin : begin + len(rows)] += np.bincount(i, minlength=len(rows))
                if other > begin:
                    sizes[other : other + len(block)] += np.bincount(j, minlength=len(block))
    return sizes


def _members(
    embeddings: Vectors, centres: npt.NDArray[np.int64], threshold: float, batch_size: int, free: npt.NDArray[np.bool_]
) -> list[npt.NDArray[np.int64]]:
    """For each centre the free rows that are alike to it, nearest first."""
    vectors = torch.cat([as_tensor(embeddings[centre : centre + 1]) for centre in centres.tolist()])
    vectors = F.normalize(vectors, dim=-1)
    found = []
    for number, block in enumerate(blocks(embeddings, batch_size)):
        begin = number * batch_size
        rows = np.flatnonzero(free[begin : begin + len(block)])
        block = F.normalize(block[rows], dim=-1)
        for i, j in _alike(vectors, block, threshold):
            scores = exact_scores(vectors, block, i, j)
            found.append((i.numpy(), begin + rows[j.numpy()], scores.numpy()))
    centre, members, cosine = (np.concatenate(parts) for parts in zip(*found, strict=True))
    members = members[np.lexsort((members, -cosine, centre))]
    return np.split(members, np.bincount(centre, minlength=len(centres)).cumsum()[:-1])


def _alike(a: Tensor, b: Tensor, threshold: float) -> Iterator[tuple[Tensor, Tensor]]:
    """The pairs of a row of `a` and a row of `b`, vectors of length 1, that are alike: row numbers, some of `a` at a time."""
    at_once = max(1, SCORES_AT_ONCE // max(1, len(b)))
    for offset in range(0, len(a), at_once):
        rows = a[offset : offset + at_once]
        scores = rows @ b.T
        i, j = places(scores >= threshold - ROUNDING)
        alike = (scores[i, j] >= threshold + ROUNDING).cpu()
        unsure = alike.logical_not().nonzero()[:, 0]
        alike[unsure] = exact_scores(rows, b, i[unsure], j[unsure]) >= threshold
        yield i[alike] + offset, j[alike]


def _unit(block: Tensor, first_row: int) -> Tensor:
    """The vectors with length 1; a `NonFiniteError` if one is NaN or infinite."""
    finite_lengths(block, "row", first_row)
    return F.normalize(block, dim=-1)
