"""From one vector per token to one vector per text.

Paper: Reimers & Gurevych 2019, "Sentence-BERT", section 3 (mean, max and CLS pooling; mean is the default).

Why the mean and not the first token, [CLS]? Pre-training gives the first token hardly a reason to summarise the whole text,
while every other token must say what it means in this text. Their mean is a good start, and it was the best after fine-tuning
too (table 6 of the paper). A model must be pooled as it was trained: 1_Pooling/config.json in its folder says how. Checked
against sentence-transformers 6.2.0, `Pooling` and `Normalize`. Axis letters: see layers.py.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

POOLING_MODES = ("mean", "cls", "max")


class Pooling(nn.Module):
    """Masked pooling over the tokens of each text, without parameters; ValueError for an unknown mode."""

    def __init__(self, mode: str = "mean") -> None:
        super().__init__()
        if mode not in POOLING_MODES:
            raise ValueError(f"pooling mode must be one of {', '.join(POOLING_MODES)}, found {mode!r}")
        self.mode = mode

    def forward(self, token_embeddings: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Pool each text's real tokens.

        Args:
            token_embeddings: (B, T, D) floating point.
            attention_mask: (B, T) bool, True = real token, of which each text has at least one; None = all are.

        Returns:
            (B, D), float32 for float16 and bfloat16 input (sums of many small numbers need the digits), else the
            dtype of the input. "mean" is the mean over real tokens, "cls" the first token, "max" the largest per
            column.
        """
        x = token_embeddings if token_embeddings.dtype == torch.float64 else token_embeddings.float()
        if self.mode == "cls":
            return x[:, 0]  # (B, D)
        if self.mode == "max":
            if attention_mask is not None:
                x = x.masked_fill(~attention_mask[:, :, None], float("-inf"))
            return x.amax(1)  # (B, D)
        if attention_mask is None:
            return x.mean(1)  # (B, D)
        # masked_fill, not a product with the mask: whatever stands at padding must not matter, and NaN · 0 would be NaN.
        total = x.masked_fill(~attention_mask[:, :, None], 0.0).sum(1)  # (B, D)
        return total / attention_mask.sum(1, keepdim=True)


class Normalize(nn.Module):
    """Scale each vector to Euclidean length 1."""

    def forward(self, embeddings: Tensor) -> Tensor:
        """Map (B, D) to (B, D) of length 1; a zero vector stays zero."""
        return F.normalize(embeddings, dim=-1)
