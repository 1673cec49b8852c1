"""Proves pooling by the plain sums, maxima, first and last vectors of the real tokens, in exact arithmetic."""

import pytest
import torch

from minisbert.models.pooling import POOLING_MODES, Pooling

LENGTHS = (300, 7, 1)


def expected(tokens, mode):
    """The pooled vector of one text, in float64."""
    tokens, n = tokens.double(), len(tokens)
    return {
        "mean": tokens.sum(0) / n,
        "cls": tokens[0],
        "max": tokens.max(0).values,
        "mean_sqrt_len_tokens": tokens.sum(0) / n**0.5,
        "weightedmean": sum(number * token for number, token in enumerate(tokens, start=1)) / sum(range(1, n + 1)),
        "lasttoken": tokens[-1],
    }[mode]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("mode", POOLING_MODES)
def test_real_tokens_alone_are_pooled(mode, dtype):
    tokens = torch.randn(len(LENGTHS), max(LENGTHS), 8, generator=torch.Generator().manual_seed(0)).sub(2).to(dtype)
    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    tokens[~mask] = float("nan")  # as attention may leave it there
    found = Pooling(mode)(tokens, mask)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    rows = torch.stack([expected(row[:length], mode) for row, length in zip(tokens, LENGTHS, strict=True)])
    torch.testing.assert_close(found.double(), rows, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(Pooling(mode)(tokens[:1]).double(), rows[:1], atol=1e-6, rtol=1e-6)


def test_several_modes_side_by_side():
    tokens, mask = torch.randn(2, 3, 4), torch.tensor([[True, True, True], [True, False, False]])
    found = Pooling("max+cls")(tokens, mask)
    assert torch.equal(found, torch.cat([Pooling("max")(tokens, mask), Pooling("cls")(tokens, mask)], dim=1))


@pytest.mark.parametrize("mode", ["median", "", "mean+", "mean cls"])
def test_an_unknown_mode_is_refused(mode):
    with pytest.raises(ValueError, match="pooling mode must be one of mean, cls, max, "):
        Pooling(mode)
