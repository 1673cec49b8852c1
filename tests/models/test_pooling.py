"""Proves pooling by the plain mean, maximum and first vector of the real tokens, in exact arithmetic."""

import pytest
import torch

from minisbert.models.pooling import POOLING_MODES, Pooling

LENGTHS = (300, 7, 1)


def expected(tokens, mode):
    """The pooled vector of one text, in float64."""
    tokens = tokens.double()
    return {"mean": tokens.sum(0) / len(tokens), "cls": tokens[0], "max": tokens.max(0).values}[mode]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("mode", POOLING_MODES)
def test_real_tokens_alone_are_pooled(mode, dtype):
    tokens = torch.randn(len(LENGTHS), max(LENGTHS), 8, generator=torch.Generator().manual_seed(0)).sub(2).to(dtype)
    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    tokens[~mask] = float("nan")  # as attention may leave it there
    found = Pooling(mode)(tokens, mask)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    rows = torch.stack([expected(row[:length], mode) for row, length in zip(tokens, LENGTHS, strict=True)])
    torch.testing.assert_close(found.double(), rows, atol=1e-6, rtol=0)
    torch.testing.assert_close(Pooling(mode)(tokens[:1]).double(), rows[:1], atol=1e-6, rtol=0)


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="mean, cls, max, found 'lasttoken'"):
        Pooling("lasttoken")
