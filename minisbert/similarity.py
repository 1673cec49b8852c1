"""How alike two vectors are: the four functions that sentence-embedding models name in their folders.

Checked against sentence-transformers 6.2.0, `util/similarity.py`. Larger is more similar: distances are negated.
"""

import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

SIMILARITY_FUNCTIONS = ("cosine", "dot", "euclidean", "manhattan")


def similarity(a: npt.ArrayLike | Tensor, b: npt.ArrayLike | Tensor, function: str = "cosine") -> Tensor:
    """Compare every vector of `a` with every vector of `b`.

    Args:
        a: (N1, D), or (D,) for one vector; arrays or tensors on any device.
        b: (N2, D), or (D,).
        function: "cosine", "dot", "euclidean" or "manhattan".

    Returns:
        (N1, N2) on the CPU, float64 if `a` is, else float32: cosines from -1 to 1, dot products, or negated distances.

    Raises:
        ValueError: there is no function of this name.

    >>> similarity([[1.0, 0.0], [0.0, 2.0]], [[3.0, 4.0]], "dot").tolist()
    [[3.0], [8.0]]
    """
    a, b = _as_rows(a), _as_rows(b)
    b = b.to(a.dtype)
    if function == "cosine":
        return F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).T
    if function == "dot":
        return a @ b.T
    if function == "euclidean":
        return -torch.cdist(a, b, p=2.0, compute_mode="donot_use_mm_for_euclid_dist")  # exact for near vectors
    if function == "manhattan":
        return -torch.cdist(a, b, p=1.0)
    raise _unknown(function)


def similarity_pairwise(a: npt.ArrayLike | Tensor, b: npt.ArrayLike | Tensor, function: str = "cosine") -> Tensor:
    """Compare row i of `a` with row i of `b`.

    Args:
        a: (N, D), or (D,) for one vector; arrays or tensors on any device.
        b: (N, D), or (D,).
        function: as for `similarity`.

    Returns:
        (N,) on the CPU, float64 if `a` is, else float32.

    Raises:
        ValueError: there is no function of this name, or the shapes differ.

    >>> similarity_pairwise([[1.0, 0.0], [0.0, 2.0]], [[3.0, 4.0], [0.0, 1.0]]).tolist()
    [0.6000000238418579, 1.0]
    """
    a, b = _as_rows(a), _as_rows(b)
    if a.shape != b.shape:
        raise ValueError(f"expected as many vectors of one width, found {tuple(a.shape)} and {tuple(b.shape)}")
    b = b.to(a.dtype)
    if function == "cosine":
        # cos(u, v) = 1 - |u/|u| - v/|v||² / 2: exactly 1 for equal vectors, so that pairs of equal sentences tie in rank.
        return 1 - (F.normalize(a, dim=-1) - F.normalize(b, dim=-1)).square().sum(-1) / 2
    if function == "dot":
        return (a * b).sum(-1)
    if function == "euclidean":
        return -(a - b).square().sum(-1).sqrt()
    if function == "manhattan":
        return -(a - b).abs().sum(-1)
    raise _unknown(function)


def cosine_by_tokens(a: Tensor, b: Tensor) -> Tensor:
    """Divide the cosine of two texts among the pairs of their tokens, exactly.

    The vector of a text is a sum over its tokens, a = a_1 + a_2 + ... (with mean pooling, a_i is token i divided by the number
    of tokens), so their product is a sum over pairs:

        cos(a, b) = a · b / (|a| |b|) = sum over i and j of  a_i · b_j / (|a| |b|)

    Args:
        a: (S, D) floating point, what each token of the first text gives to its vector, see `tour.token_parts`.
        b: (T, D), the same of the second text.

    Returns:
        (S, T); all of it sums up to the cosine, row i to what token i of the first text adds to it.

    >>> cosine_by_tokens(torch.tensor([[3.0, 0.0], [0.0, 4.0]]), torch.tensor([[2.0, 0.0]]))  # (3, 4) and (2, 0)
    tensor([[0.6000],
            [0.0000]])
    """
    return a @ b.T / (a.sum(0).norm() * b.sum(0).norm())


def _unknown(function: str) -> ValueError:
    return ValueError(f"similarity function must be one of {', '.join(SIMILARITY_FUNCTIONS)}, found {function!r}")


def _as_rows(vectors: npt.ArrayLike | Tensor) -> Tensor:
    tensor = torch.as_tensor(vectors).cpu()
    rows = tensor if tensor.ndim == 2 else tensor[None]
    return rows if rows.dtype == torch.float64 else rows.float()
