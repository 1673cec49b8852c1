"""Proves DeBERTa-v2's attention against its equation as `plain_position_scores` writes it, for every choice of its terms."""

import math

import pytest
import torch

from minisbert.errors import ModelError
from minisbert.models.deberta_v2 import (
    DebertaV2Config,
    DisentangledAttention,
    log_buckets,
    plain_position_scores,
    relative_shift,
    table_rows,
)
from minisbert.models.layers import merge_heads, split_heads
from tests.tiny import CONFIGS

T, HEADS = 11, 2  # a text of more tokens than there are buckets


def naive_bucket(distance, buckets, largest):
    """He et al.'s code: near distances are their own buckets, far ones share buckets by the logarithm of the distance."""
    middle = buckets // 2
    if abs(distance) <= middle:
        return distance
    far = math.ceil(math.log(abs(distance) / middle) / math.log((largest - 1) / middle) * (middle - 1)) + middle
    return far if distance > 0 else -far


@pytest.mark.parametrize(("buckets", "largest"), [(6, 9), (8, 32), (9, 40), (256, 512)])
def test_buckets_one_by_one(buckets, largest):
    distances = torch.arange(-largest + 1, largest)
    expected = [naive_bucket(distance, buckets, largest) for distance in distances.tolist()]
    assert log_buckets(distances, buckets, largest).tolist() == expected


@pytest.mark.parametrize("c2p", [True, False])
@pytest.mark.parametrize("p2c", [True, False])
def test_plain_scores_are_the_two_products_of_the_paper(c2p, p2c):
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(2, HEADS, 3, 5, generator=generator) for _ in range(2))
    relative_key, relative_query = (torch.randn(HEADS, 4, 5, generator=generator) for _ in range(2))
    rows = torch.tensor([[2, 1, 0], [3, 2, 1], [3, 3, 2]])  # of the distances q - k, clamped
    found = plain_position_scores(query, key, relative_key if c2p else None, relative_query if p2c else None, rows)
    for b, h, q, k in torch.cartesian_prod(*map(torch.arange, found.shape)).tolist():
        expected = c2p * query[b, h, q] @ relative_key[h, rows[q, k]] + p2c * key[b, h, k] @ relative_query[h, rows[q, k]]
        torch.testing.assert_close(found[b, h, q, k], expected, atol=1e-5, rtol=0)


def plain_attention(attention, config, x, mask, table):
    """Equation 4 of the paper for whole texts: a row of the table for every pair of tokens."""
    query, key, value = (split_heads(part(x), HEADS) for part in (attention.query, attention.key, attention.value))
    scores = query @ key.transpose(-1, -2)  # (B, H, T, T)
    if config.relative_attention:
        relative_key = split_heads((attention.relative_key or attention.key)(table), HEADS)  # (H, R, K)
        relative_query = split_heads((attention.relative_query or attention.query)(table), HEADS)
        scores = scores + plain_position_scores(
            query,
            key,
            relative_key if "c2p" in config.pos_att_type else None,
            relative_query if "p2c" in config.pos_att_type else None,
            table_rows(torch.arange(T)[:, None] - torch.arange(T)[None, :], config),
        )
    variance = torch.tensor(query.shape[-1] * (1 + len(config.pos_att_type)), dtype=torch.float32)
    weights = (scores / variance.sqrt().double()).masked_fill(~mask[:, None, None, :], -math.inf).softmax(-1)
    return attention.output(merge_heads(weights @ value))


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("buckets", [6, -1])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("terms", [["c2p"], ["p2c"], ["c2p", "p2c"]])
def test_attention_follows_its_equation(terms, shared, buckets, relative):
    fields = {
        "pos_att_type": terms,
        "share_att_key": shared,
        "position_buckets": buckets,
        "relative_attention": relative,
    }
    config = DebertaV2Config.from_fields({**CONFIGS["deberta-v2"], "max_relative_positions": 9, **fields})
    generator = torch.Generator().manual_seed(0)
    attention = DisentangledAttention(config).double().eval()
    for parameter in attention.parameters():
        parameter.data.normal_(std=0.2, generator=generator)
    x = torch.randn(2, T, config.hidden_size, generator=generator, dtype=torch.float64)
    table = torch.randn(2 * config.span, config.hidden_size, generator=generator, dtype=torch.float64)
    mask = torch.arange(T) < torch.tensor([[T], [7]])
    rows = table_rows(torch.arange(T, -T, -1), config)
    with torch.no_grad():
        expected = plain_attention(attention, config, x, mask, table)
        found = attention(x, mask[:, None, None, :], *((table, rows) if relative else (None, None)))
    torch.testing.assert_close(found[mask], expected[mask], atol=1e-12, rtol=0)


def test_the_shift_puts_every_distance_where_its_tokens_meet():
    distances = torch.arange(T, -T, -1).expand(2, T, 2 * T).contiguous()  # every query against every distance
    assert torch.equal(relative_shift(distances), (torch.arange(T)[:, None] - torch.arange(T)).expand(2, T, T))


def test_the_most_buckets():
    fields = {**CONFIGS["deberta-v2"], "max_relative_positions": 12}
    assert DebertaV2Config.from_fields({**fields, "position_buckets": 21}).span == 21
    with pytest.raises(ModelError, match="position_buckets must be -1, or from 4 to 21"):
        DebertaV2Config.from_fields({**fields, "position_buckets": 22})
