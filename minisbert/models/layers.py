"""Building blocks: attention and layer of BERT and RoBERTa; linear map, feed-forward and activations of these and DeBERTa-v2.

Reference: Vaswani et al. 2017, "Attention Is All You Need", sections 3.1 to 3.3; the layers are post-norm, as there.

Axis letters of the whole project:
    B batch      T tokens            D width             H heads        K = D / H head width
    V vocabulary P positions         F feed-forward width               R relative positions      N texts

(In the code, F is torch.nn.functional.) Masks are boolean, True = real token. `None` stands for "all tokens are real",
which lets attention without positions in its scores take its fastest kernel.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _gelu(x: Tensor) -> Tensor:
    """Return x Φ(x). Without gradients x is overwritten: one more tensor of its size slows encoding on a CPU by 4 %."""
    return F.gelu(x) if torch.is_grad_enabled() else torch.ops.aten.gelu_(x)


def _gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


# The names that config.json uses. "gelu": Hendrycks & Gimpel 2016, section 2. The argument may be overwritten.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": _gelu,
    "gelu_new": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "relu": F.relu,
    "silu": F.silu,
    "tanh": torch.tanh,
}


# Many x86 processors have no bfloat16 instructions; torch then emulates each product. A version of torch that does not answer
# the private question is taken not to.
EMULATES_BFLOAT16 = (
    torch.backends.cpu.get_cpu_capability().startswith("AVX")
    and not getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)()
)


def _product_is_emulated(x: Tensor) -> bool:
    return EMULATES_BFLOAT16 and x.dtype == torch.bfloat16 and x.device.type == "cpu"


class Linear(nn.Linear):
    """y = x Wᵀ + b. A bfloat16 model on a CPU that would emulate the product multiplies in float32, four times as fast.

    The result is the same up to the last digit of bfloat16: products are added up in float32 and rounded once either way.
    (Not under autocast, which casts the factors back.)
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in_features) to (..., out_features)."""
        if _product_is_emulated(x):
            return F.linear(x.float(), self.weight.float(), self.bias.float()).bfloat16()
        return super().forward(x)

    def add_to(self, residual: Tensor, x: Tensor, dropout: float) -> Tensor:
        """Return residual + Dropout(x Wᵀ + b), with which every sub-layer ends; `residual` is not overwritten.

        Takes `residual` (B, T, out_features), x (B, T, in_features) and the probability of dropout.
        """
        # Dropout and gradients need the product by itself. Under autocast, x is bfloat16 and the residual float32.
        if self.training or torch.is_grad_enabled() or x.dtype != residual.dtype or _product_is_emulated(x):
            return residual + F.dropout(self(x), dropout, self.training)  # (B, T, out_features)
        # Adding the product up on top of residual + b reads and writes less: 2 % of encoding on a CPU.
        total = (residual + self.bias).flatten(0, 1)  # (B·T, out_features)
        return total.addmm_(x.flatten(0, 1), self.weight.t()).view_as(residual)  # (B, T, out_features)


class MultiHeadAttention(nn.Module):
    """x + Dropout(attention(x)): scaled dot-product self-attention with H heads (Vaswani et al. 2017, section 3.2)."""

    def __init__(self, width: int, heads: int, attention_dropout: float, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.attention_dropout = attention_dropout
        self.dropout = dropout
        self.query = Linear(width, width)
        self.key = Linear(width, width)
        self.value = Linear(width, width)
        self.output = Linear(width, width)

    def forward(self, x: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Let every token gather from all real tokens of its text.

        Args:
            x: (B, T, D) floating point.
            attention_mask: (B, 1, 1, T) bool, True = real token; None = all are.

        Returns:
            (B, T, D): x + Dropout(what was gathered), not yet normalised.
        """
        B, T, D = x.shape
        query = self.query(x).view(B, T, self.heads, -1).transpose(1, 2)  # (B, H, T, K)
        key = self.key(x).view(B, T, self.heads, -1).transpose(1, 2)  # (B, H, T, K)
        value = self.value(x).view(B, T, self.heads, -1).transpose(1, 2)  # (B, H, T, K)
        mixed = F.scaled_dot_product_attention(
            query, key, value, attn_mask=attention_mask, dropout_p=self.attention_dropout if self.training else 0.0
        )  # (B, H, T, K)
        return self.output.add_to(x, mixed.transpose(1, 2).reshape(B, T, D), self.dropout)  # (B, T, D)


class FeedForward(nn.Module):
    """x + Dropout(f(x)): two linear maps with an activation between, token by token (Vaswani et al. 2017, section 3.3)."""

    def __init__(self, width: int, feed_forward_width: int, activation: str, dropout: float) -> None:
        super().__init__()
        self.expand = Linear(width, feed_forward_width)
        self.contract = Linear(feed_forward_width, width)
        self.activation = ACTIVATIONS[activation]
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, D) to (B, T, D), not yet normalised, by way of (B, T, F)."""
        return self.contract.add_to(x, self.activation(self.expand(x)), self.dropout)


class EncoderLayer(nn.Module):
    """One layer of BERT and RoBERTa: attention, then feed-forward, each followed by LayerNorm.

    The two return x + Dropout(f(x)): residual and dropout are theirs, LayerNorm is the layer's.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        feed_forward_width: int,
        activation: str,
        layer_norm_eps: float,
        hidden_dropout: float,
        attention_dropout: float,
    ) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(width, heads, attention_dropout, hidden_dropout)
        self.attention_norm = nn.LayerNorm(width, eps=layer_norm_eps)
        self.feed_forward = FeedForward(width, feed_forward_width, activation, hidden_dropout)
        self.feed_forward_norm = nn.LayerNorm(width, eps=layer_norm_eps)

    def forward(self, x: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Map (B, T, D) to (B, T, D); `attention_mask` as in `MultiHeadAttention`."""
        x = self.attention_norm(self.attention(x, attention_mask))
        return self.feed_forward_norm(self.feed_forward(x))
