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
        a: (N, D), or (D,) for one vector; arrays or tensors on any device.
        b: (M, D), or (D,).
        function: "cosine", "dot", "euclidean" or "manhattan".

    Returns:
        (N, M) on the CPU, float64 if `a` is, else float32: cosines from -1 to 1, dot products, or negated distances.

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
    raise ValueError(f"similarity function must be one of {', '.join(SIMILARITY_FUNCTIONS)}, found {function!r}")


def _as_rows(vectors: npt.ArrayLike | Tensor) -> Tensor:
    tensor = torch.as_tensor(vectors).cpu()
    rows = tensor if tensor.ndim == 2 else tensor[None]
    return rows if rows.dtype == torch.float64 else rows.float()
