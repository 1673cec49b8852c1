"""From one vector per token to one vector per text.

Paper: Reimers & Gurevych 2019, "Sentence-BERT", section 3 (mean, max and CLS pooling; mean is the default).

Why the mean and not the first token, [CLS]? Pre-training gives the first token hardly a reason to summarise the whole text,
while every other token must say what it means in this text. Their mean is a good start, and it was the best after fine-tuning
too (table 6 of the paper). A model must be pooled as it was trained: 1_Pooling/config.json in its folder says how, by
"pooling_mode": "cls" or, in older ones, "pooling_mode_cls_token": true. For another one: `model.pooling = Pooling("cls")`.
Checked against sentence-transformers 6.2.0, `Pooling`. Axis letters: see layers.py.
"""

import torch
from torch import Tensor, nn

POOLING_MODES = ("mean", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")


class Pooling(nn.Module):
    """Masked pooling over the tokens of each text, without parameters.

    Args:
        mode: one of `POOLING_MODES`; or several, joined by "+", whose vectors are put side by side: "cls+mean".

    Raises:
        ValueError: it is something else.
    """

    def __init__(self, mode: str = "mean") -> None:
        super().__init__()
        self.mode, self.modes = mode, mode.split("+")
        if not set(self.modes) <= set(POOLING_MODES):
            raise ValueError(f"pooling mode must be one of {', '.join(POOLING_MODES)}, or some joined by +, found {mode!r}")

    def forward(self, token_embeddings: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Pool each text's real tokens.

        Args:
            token_embeddings: (B, T, D) floating point.
            attention_mask: (B, T) bool, True = real token; None = all are. Padding comes after the real tokens, of which each
                text has at least one: an empty text has its special tokens. Without any, the mean would be 0 / 0.

        Returns:
            (B, D), or (B, n D) for n modes; float32 for float16 and bfloat16 input (sums of many small numbers need the
            digits), else the dtype of the input.
        """
        x = token_embeddings if token_embeddings.dtype == torch.float64 else token_embeddings.float()
        return torch.cat([_pool(mode, x, attention_mask) for mode in self.modes], dim=1)  # (B, n D)


def _pool(mode: str, x: Tensor, mask: Tensor | None) -> Tensor:
    """(B, T, D) to (B, D) in one of the modes."""
    if mask is None:
        mask = x.new_ones(x.shape[:2], dtype=torch.bool)  # (B, T)
    elif mode != "cls":
        # Not a product with the mask: whatever stands at padding must not matter, and NaN · 0 would be NaN.
        x = x.masked_fill(~mask[:, :, None], float("-inf") if mode == "max" else 0.0)
    lengths = mask.sum(1, keepdim=True)  # (B, 1)
    if mode == "cls":
        return x[:, 0]  # (B, D)
    if mode == "lasttoken":
        return x.take_along_dim(lengths[:, :, None] - 1, dim=1)[:, 0]  # one index for all D columns of a text: (B, D)
    if mode == "max":
        return x.amax(1)  # (B, D)
    if mode == "weightedmean":  # the first token counts once, the second twice and so on: 1 + 2 + ... + n = n (n + 1) / 2
        weights = torch.arange(1, x.shape[1] + 1, device=x.device)[:, None]  # (T, 1)
        return (x * weights).sum(1) / (lengths * (lengths + 1) / 2).to(x.dtype)  # (B, D)
    return x.sum(1) / (lengths if mode == "mean" else lengths.to(x.dtype).sqrt())  # (B, D)
