"""8-bit products: linear maps whose factors are whole numbers of one byte, four times as fast as float32 on a CPU with VNNI.

Weights are rounded when a model is loaded. Each output has a scale of its own: s_W = max |row| / 127, and whole numbers
q_W = round(row / s_W) from -127 to 127. Tokens are rounded when they are multiplied, each with a scale and a lowest number of
its own, so that they use all of a byte, 0 to 255, even where their numbers lie more to one side, as after GELU they do:

    low = min(x)        s_x = (max(x) - low) / 255        q_x = round((x - low) / s_x)

With x (T, D), the weight W (M, D) and the bias b, and nothing rounded any further, the product is then

    x Wᵀ + b  ≈  (s_x q_x + low) (s_W q_W)ᵀ + b  =  s_x s_W (q_x q_Wᵀ) + low s_W Σ q_W + b

where s_x and low are (T, 1), s_W is (M,), and Σ q_W (M,) adds up each row of q_W. q_x q_Wᵀ are sums of whole numbers, which are
exact. Each factor is off by at most half its scale. Everything around the product stays in float32. Why a scale for each token?
A token that is far larger than others, as real weights make them, takes no digits from these, and no text changes the scale of
another. Why a lowest number? With scales alone, the cosine of an int8 vector of all-MiniLM-L6-v2 with that in float32 fell to
0.983; with a lowest number it is at least 0.99. The scale and the lowest number cost one more pass over the product each.

A difference in the last digit of a float32 sum can change a rounded number by 1. Such changes grow from layer to layer, and
after six real layers two vectors of a text can be as far apart as each is from float32. Padding changes the order of such sums
in the attention. So texts of different lengths never share a batch (devices.py), and then a text has the same vector whatever
it is encoded with: to the last bit with every trained model that was tried, but this is not certain, since on some processors
the last digit of a float32 product depends on the number of rows.

The processor multiplies bytes from 0 to 255 with signed ones. If it has VNNI instructions, it adds such products up in 32 bits.
Older ones first add two of them in 16 bits, where a sum stops at 32,767 and no error shows; 255 · 127 · 2 = 64,770 may come.
There q_W goes from -64 to 64, about seven bits: 255 · 64 · 2 = 32,640 fits. The bit is taken from the weights, because tokens
have larger outliers. On such processors torch's products of bytes are slower than those of float32 (half as fast on an AMD
Zen 1), unless there are few tokens: then reading the weights takes the time.

Axis letters: see layers.py; here M is the number of outputs.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from minisbert.errors import InputError

LARGEST_WEIGHT = 127
LARGEST_WEIGHT_WITHOUT_VNNI = 64
LARGEST_PIECE = 2**25 - 2**13  # bytes; glibc learns from pieces of up to 32 MB (mallopt, M_MMAP_THRESHOLD)
ROWS_AT_ONCE = 128  # of a weight, when it is rounded
SMALLEST_SCALE = torch.finfo(torch.float32).tiny  # a row of zeros is divided by this, and stays zeros


def require_int8(device: torch.device) -> None:
    """Check that this device, this processor and this version of torch can multiply so; InputError if not."""
    if device.type != "cpu":
        raise InputError(f"dtype int8 is for the device cpu, not {device.type}: use bfloat16 or float32 there")
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        raise InputError("dtype int8 needs an x86 processor with AVX2: use float32 or bfloat16")
    if not hasattr(torch.ops.onednn, "qlinear_pointwise"):
        raise InputError(f"dtype int8 needs products that torch {torch.__version__} does not have: use float32 or bfloat16")


def keep_freed_memory() -> None:
    """Let the C library keep more of the memory that is freed, once a model is loaded.

    The products are so fast that it shows, by 5 %, when each layer's memory is returned to the system and asked for again.
    glibc, the C library of Linux, keeps up to twice the largest piece that it has seen freed. So a large one is asked for and
    freed at once. It is not written to, so it costs nothing.
    """
    torch.empty(LARGEST_PIECE, dtype=torch.uint8)


def has_int8(module: nn.Module) -> bool:
    """Whether there is an 8-bit linear map in it."""
    return any(isinstance(part, Int8Linear) for part in module.modules())


def has_vnni() -> bool:
    """Whether the processor has VNNI, as a private function of torch says; False in a version of torch without it."""
    return bool(getattr(torch.cpu, "_is_vnni_supported", bool)())


def largest_weight() -> int:
    """127, or 64 without VNNI."""
    return LARGEST_WEIGHT if has_vnni() else LARGEST_WEIGHT_WITHOUT_VNNI


def quantise_weight(weight: Tensor, largest: int) -> tuple[Tensor, Tensor]:
    """Round (M, D) to q_W from -largest to largest, int8 (M, D), and s_W, float32 (M, 1)."""
    scale = (weight.abs().amax(-1, keepdim=True) / largest).clamp(min=SMALLEST_SCALE)
    return (weight / scale).round().to(torch.int8), scale


def quantise_tokens(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Round (..., D) to q_x, uint8 (..., D); also s_x and low, float32 (..., 1). NaN stays NaN in these two."""
    low = x.amin(-1, keepdim=True)
    scale = x.amax(-1, keepdim=True).sub_(low).div_(255).clamp_(min=SMALLEST_SCALE)
    # From 2^23 to 2^24 float32 has whole numbers only: adding 2^23 rounds, and the lowest byte of its bits is q_x.
    # `round` and a conversion of float32 to bytes would take longer.
    rounded = (x - low).mul_(scale.reciprocal()).add_(2.0**23)
    return rounded.view(torch.int32).to(torch.uint8), scale, low


def plain_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The arithmetic above as it is written there, (..., D) to (..., M); no token of equal numbers, no row of zeros.

    For readers and tests; the models use `Int8Linear`.
    """
    low = x.amin(-1, keepdim=True)
    token_scale = (x.amax(-1, keepdim=True) - low) / 255
    tokens = ((x - low) / token_scale).round().long()
    weight_scale = weight.abs().amax(-1) / largest_weight()  # (M,)
    rows = (weight / weight_scale[:, None]).round().long()
    return token_scale * weight_scale * (tokens @ rows.t()) + low * weight_scale * rows.sum(-1) + bias


class Int8Linear(nn.Module):
    """y = x Wᵀ + b with 8-bit factors; no gradients.

    Takes weight (M, D) and bias (M,) on the CPU. They become buffers: there is nothing to train.
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        # Piece by piece: the weight may be a file that is mapped into memory, and nothing of its size in wider numbers is made.
        parts = [quantise_weight(rows.float(), largest_weight()) for rows in weight.split(ROWS_AT_ONCE)]
        rows, scale = (torch.cat(part) for part in zip(*parts, strict=True))
        self.weight: Tensor
        self.scale: Tensor
        self.bias: Tensor
        self.sums: Tensor
        self.register_buffer("weight", torch.ops.onednn.qlinear_prepack(rows, None))  # (D, M), ordered as the processor likes
        self.register_buffer("scale", scale.flatten())  # (M,)
        self.register_buffer("bias", bias.float().clone())  # (M,)
        self.register_buffer(
            "sums", self.scale * torch.cat([part.sum(-1) for part in rows.split(ROWS_AT_ONCE)])
        )  # (M,), s_W Σ q_W
        self.zero_points = torch.zeros_like(self.scale, dtype=torch.int32)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., D) to (..., M)."""
        return products(x, [self])[0]

    def added_to(self, residual: Tensor, x: Tensor) -> Tensor:
        """Residual + forward(x); `residual` (..., M) is not overwritten."""
        return self.scaled_product(*quantise_tokens(x), residual).add_(self.bias)

    def scaled_product(self, tokens: Tensor, scale: Tensor, low: Tensor, start: Tensor) -> Tensor:
        """Start, (..., M) or (M,), + scale · multiply(tokens) + low · sums: (..., M), of what `quantise_tokens` returned."""
        product = self.multiply(tokens)
        return torch.addcmul(start, product, scale, out=product).addcmul_(low, self.sums)

    def multiply(self, tokens: Tensor) -> Tensor:
        """s_W (q_x q_Wᵀ), float32 (..., M), of q_x, uint8 (..., D)."""
        return torch.ops.onednn.qlinear_pointwise.default(
            tokens, 1.0, 0, self.weight, self.scale, self.zero_points, None, 1.0, 0, torch.float32, "none", [], ""
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Int8Linear":
        moved = fn(self.scale)
        if moved.device != self.scale.device or moved.dtype != self.scale.dtype:
            raise InputError("an int8 model stays as it was loaded: load it again for another device or dtype")
        return self


def products(x: Tensor, linears: Sequence[Int8Linear]) -> list[Tensor]:
    """Send x (..., D) through each of the linear maps; it is rounded once for all of them."""
    rounded = quantise_tokens(x)
    return [linear.scaled_product(*rounded, linear.bias) for linear in linears]
