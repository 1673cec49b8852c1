"""Sort by length, cut where padding would waste: one planner for encoding and for training.

A batch is a rectangle: its rows are texts, and all are filled up to the longest with padding (.). Padding takes as much time as
real tokens (#), and what comes out is thrown away. So texts are sorted by their number of tokens, and neighbours in length go
together:

    one batch                   cut once
    # # # . . . . . .           # # #
    # # # . . . . . .           # # #
    # # # . . . . . .           # # #                   3 x 3 =  9 tokens
    # # # # # # # # .           # # # # # # # # .
    # # # # # # # # #           # # # # # # # # #       2 x 9 = 18 tokens
    5 x 9 = 45 tokens           27 tokens, but one batch more

Why not cut everywhere? A batch costs something besides its tokens: the weights are read from memory and kernels are launched
once for each. `batch_cost` says how much, in tokens: the number of tokens that could be computed in that time. So

    cost of a batch = rows x longest length + batch_cost

With batch_cost 0 every length gets batches of its own and no padding at all; a larger one merges neighbouring lengths. The
cuts are those of the smallest total cost. A group that is larger than the memory budget is divided into equal batches.
(Where the budget is tight, cuts inside a length could do a little better: by 1 % on KorSTS, for much more planning.)
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]


def plan_batches(
    lengths: Sequence[int] | npt.NDArray[np.integer], max_tokens: int, batch_cost: int, max_rows: int | None = None
) -> list[Rows]:
    """Divide texts into batches of similar length.

    Args:
        lengths: number of tokens of each text, at least 1.
        max_tokens: the largest rows x longest length of a batch; a single longer text is a batch of its own.
        batch_cost: what one more batch costs, in tokens.
        max_rows: the most texts of a batch; None = as many as `max_tokens` allows.

    Returns:
        For each batch the int64 indices of its texts, shortest first inside; the batch of the longest texts comes
        first, so that a lack of memory shows at once. Every text is in exactly one batch.

    >>> [rows.tolist() for rows in plan_batches([3, 9, 3, 8, 3], max_tokens=100, batch_cost=4)]
    [[3, 1], [0, 2, 4]]
    """
    lengths = np.asarray(lengths)
    order = np.argsort(lengths, kind="stable")
    # The lengths that occur, ascending; how many texts have each; where these end and begin in `order`.
    distinct, counts = np.unique(lengths, return_counts=True)
    ends = np.cumsum(counts)
    begins = ends - counts
    most_rows = np.clip(max_tokens // distinct, 1, max_rows)  # of a batch whose longest text has distinct[i] tokens

    # Dynamic programming. The best cuts for the first j lengths are the best cuts for the first i of them, and then one group
    # of distinct[i] to distinct[j - 1]; all i are tried. least[j] is their cost, start[j] the i. From the shortest upwards.
    least = np.zeros(len(distinct) + 1)
    start = np.zeros(len(distinct) + 1, dtype=np.int64)
    for j in range(1, len(distinct) + 1):
        rows = ends[j - 1] - begins[:j]  # rows[i]: how many texts have a length from distinct[i] to distinct[j - 1]
        batches = -(-rows // most_rows[j - 1])  # rounded up
        costs = least[:j] + rows * distinct[j - 1] + batches * batch_cost
        start[j] = np.argmin(costs)
        least[j] = costs[start[j]]

    plan: list[Rows] = []
    j = len(distinct)
    while j > 0:
        i = start[j]
        group = order[begins[i] : ends[j - 1]]
        plan.extend(reversed(np.array_split(group, -(-len(group) // most_rows[j - 1]))))
        j = i
    return plan
