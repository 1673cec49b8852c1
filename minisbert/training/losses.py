"""What training makes small: the three losses of the published Korean sentence-embedding models.

A batch has columns of B texts each; a loss gets the sentence embeddings of every column, (B, D) each, and the labels.
All of them look at cosines: what a text says is in the direction of its vector, not in its length. Checked against
sentence-transformers 6.2.0 (values and gradients in float64). Axis letters: see layers.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from minisbert.distributed import process_count, process_rank, rows_of_all_processes
from minisbert.training.examples import Batches


class Loss(Protocol):
    """A function of the sentence embeddings of each text column, (B, D), and of the labels, (B,) or None."""

    def __call__(self, embeddings: Sequence[Tensor], labels: Tensor | None) -> Tensor:
        """The loss, a scalar."""


@dataclass(frozen=True)
class Objective:
    """A loss and the batches it is computed on."""

    batches: Batches
    loss: Loss
    name: str = "train"


@dataclass(frozen=True)
class MultipleNegativesRankingLoss:
    """Find the text that belongs to each anchor among all texts of the batch (Henderson et al. 2017, section 4.4).

    The columns are anchors, positives and, if there are more, hard negatives: texts that look like the answer and are none (in
    KorNLI the contradiction). With c running over the positives and hard negatives of all rows,

        loss = mean over rows i of  -log( exp(scale · cos(anchor_i, positive_i)) / sum_c exp(scale · cos(anchor_i, c)) )

    The texts of other rows are wrong answers that cost nothing: two rows drawn at random almost never mean the same, so nobody
    has to label them, and their embeddings are computed anyway. A batch of 64 gives every anchor 63 of them, and with a hard
    negative in each row 64 more. This only holds if no text occurs twice in a batch, see `examples.NoDuplicatesBatches`.

    Why scale 20: cosines lie between -1 and 1, so without it the right answer among 64 could have at most
    exp(1) / (exp(1) + 63 exp(-1)), a tenth of the probability, however good the model. Scale 20 (a temperature of 1/20 = 0.05)
    widens the range to -20 ... 20, where one candidate can take nearly all of it.

    With several processes the candidates of all of them are gathered, and the gradient flows back to where they came from.
    """

    scale: float = 20.0

    def __call__(self, embeddings: Sequence[Tensor], labels: Tensor | None = None) -> Tensor:
        """The loss, a scalar; `labels` are not used: row i belongs to row i.

        Args:
            embeddings: two or more columns of (B, D) floating point.
            labels: ignored.

        Raises:
            ValueError: there is only one column.
        """
        if len(embeddings) < 2:
            raise ValueError(f"expected anchors and positives, found {len(embeddings)} column")
        anchors, *columns = (F.normalize(column, dim=-1) for column in embeddings)
        targets = torch.arange(len(anchors), device=anchors.device)  # (B,)
        if process_count() > 1:
            columns = [rows_of_all_processes(column) for column in columns]  # (B of all processes, D) each
            targets = targets + process_rank() * len(anchors)
        # Positives come first among the candidates, so the right one for row i is column i, and cross-entropy is the formula.
        scores = self.scale * anchors @ torch.cat(columns).T  # (B, number of candidates)
        return F.cross_entropy(scores, targets)


@dataclass(frozen=True)
class CosineSimilarityLoss:
    """Make the cosine of two texts equal to their label (Reimers & Gurevych 2019, section 3, "regression objective").

    loss = mean over rows i of  (cos(u_i, v_i) - label_i)²
    """

    def __call__(self, embeddings: Sequence[Tensor], labels: Tensor | None) -> Tensor:
        """The loss, a scalar.

        Args:
            embeddings: two columns of (B, D) floating point.
            labels: (B,), the cosines to reach.

        Raises:
            ValueError: there are not two columns, or no labels.
        """
        if len(embeddings) != 2 or labels is None:
            found = "no labels" if labels is None else "labels"
            raise ValueError(f"expected two columns and labels, found {len(embeddings)} columns and {found}")
        cosines = F.cosine_similarity(embeddings[0], embeddings[1])  # (B,)
        return F.mse_loss(cosines, labels.to(cosines.dtype))


@dataclass(frozen=True)
class MatryoshkaLoss:
    """Apply a loss to the first d columns of the embeddings too, for several d (Kusupati et al. 2022, section 3).

    So vectors still work when they are cut to d numbers (`truncate_dim`): less to store, and faster to search.

    loss = sum over k of  weight_k · loss(embeddings[:, :dims_k])
    """

    loss: Loss
    dims: tuple[int, ...]
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not self.dims or min(self.dims) < 1:
            raise ValueError(f"expected one or more positive dimensions, found {self.dims}")
        if self.weights is not None and len(self.weights) != len(self.dims):
            raise ValueError(f"expected as many weights as dimensions, found {len(self.weights)} and {len(self.dims)}")

    def __call__(self, embeddings: Sequence[Tensor], labels: Tensor | None) -> Tensor:
        """The weighted sum of the losses, a scalar; arguments as those of the inner loss.

        Raises:
            ValueError: a dimension is larger than the embeddings have.
        """
        width = embeddings[0].shape[-1]
        if max(self.dims) > width:
            raise ValueError(f"the embeddings have {width} dimensions, fewer than the {max(self.dims)} asked for")
        weights = self.weights or (1.0,) * len(self.dims)
        losses = [
            weight * self.loss([column[:, :dim] for column in embeddings], labels)
            for dim, weight in zip(self.dims, weights, strict=True)
        ]
        return torch.stack(losses).sum()
