"""What is there only for speed. Everything here computes what layers.py says, to the last digits of rounding.

A reader of the mathematics can skip this file. tests/models/test_fast.py proves each function equal to its plain form.
Percentages were measured with tests/benchmarks on a CPU. Axis letters: see layers.py.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minisbert.models import int8

# Many x86 processors have no bfloat16 instructions; torch then emulates each product. The question is private to torch: a
# version that cannot answer it is taken not to emulate.
EMULATES_BFLOAT16 = (
    torch.backends.cpu.get_cpu_capability().startswith("AVX")
    and not getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)()
)


def product_is_emulated(x: Tensor) -> bool:
    """Whether this processor would emulate a matrix product with `x`: four times slower than in float32."""
    return EMULATES_BFLOAT16 and x.dtype == torch.bfloat16 and x.device.type == "cpu"


class Linear(nn.Linear):
    """y = x Wᵀ + b. Where a bfloat16 product would be emulated, it is computed in float32 and rounded once at the end.

    The result is the same up to the last digit of bfloat16: products are added up in float32 either way. (Autocast casts the
    factors back, so there nothing is gained.)
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in_features) to (..., out_features)."""
        if product_is_emulated(x):
            return F.linear(x.float(), self.weight.float(), self.bias.float()).bfloat16()
        return super().forward(x)


def products(x: Tensor, *linears: nn.Module) -> Sequence[Tensor]:
    """Send x through each of the linear maps; if they are 8-bit, it is rounded once for all of them."""
    rounding = [linear for linear in linears if isinstance(linear, int8.Int8Linear)]
    return int8.products(x, rounding) if rounding else [linear(x) for linear in linears]


def attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float, scale: float | None = None
) -> Tensor:
    """`layers.attention` in one kernel of torch, which never writes the (T, T) scores to memory where it can avoid it.

    Args:
        query: (B, H, T, K), and so are key and value.
        key: what queries are compared with.
        value: what is mixed.
        mask: bool, True = may be looked at, or numbers to add to the scaled scores; None = everything may be looked at, which
            is the fastest. It broadcasts to (B, H, T, T).
        dropout: probability of dropping a weight; 0 outside training.
        scale: what query · key is multiplied with; None = 1 / sqrt(K).

    Returns:
        (B, H, T, K).
    """
    return F.scaled_dot_product_attention(query, key, value, mask, dropout, scale=scale)


def encoder_layer(layer: Any, x: Tensor, *attention_inputs: Tensor | None) -> Tensor:
    """`layers.EncoderLayer` without dropout and gradients: fewer passes over memory, 5 % faster on a CPU.

    Args:
        layer: a `layers.EncoderLayer`.
        x: (B, T, D).
        attention_inputs: as for its attention.

    Returns:
        (B, T, D).
    """
    x = layer.attention_norm(add_product(x, layer.attention.output, layer.attention.mix(x, *attention_inputs)))
    hidden = activate(layer.feed_forward.activation, layer.feed_forward.expand(x))  # (B, T, M)
    return layer.feed_forward_norm(add_product(x, layer.feed_forward.contract, hidden))  # (B, T, D)


def activate(activation: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """activation(x); GELU overwrites x, because one more tensor of this size makes encoding 4 % slower. No gradients."""
    return torch.ops.aten.gelu_(x) if activation is F.gelu else activation(x)


def add_product(residual: Tensor, linear: nn.Linear | int8.Int8Linear, x: Tensor) -> Tensor:
    """Residual + linear(x), without gradients; `residual` is not overwritten.

    Takes residual (B, T, out_features) and x (B, T, in_features). Adding the product up on top of residual + b, instead of
    writing product and sum one after the other, is worth 2 % of encoding.
    """
    if isinstance(linear, int8.Int8Linear):
        return linear.added_to(residual, x)
    # Under autocast x is bfloat16 and the residual float32; an emulated product is rounded before it is added.
    if x.dtype != residual.dtype or product_is_emulated(x):
        return residual + linear(x)
    total = (residual + linear.bias).flatten(0, 1)  # (B·T, out_features)
    return total.addmm_(x.flatten(0, 1), linear.weight.t()).view_as(residual)  # (B, T, out_features)
