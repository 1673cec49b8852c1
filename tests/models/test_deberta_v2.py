"""Proves DeBERTa-v2's attention against its equation, written out token by token, for every choice of its terms."""

import math

import pytest
import torch

from minisbert.errors import ModelError
from minisbert.models.deberta_v2 import DebertaV2Config, DisentangledAttention, relative_rows
from tests.tiny import CONFIGS

T, HEADS = 11, 2  # a text of more tokens than there are buckets


def naive_bucket(distance, buckets, largest):
    """He et al.'s code: near distances are their own buckets, far ones share buckets by the logarithm of the distance."""
    middle = buckets // 2
    if abs(distance) <= middle:
        return distance
    far = math.ceil(math.log(abs(distance) / middle) / math.log((largest - 1) / middle) * (middle - 1)) + middle
    return far if distance > 0 else -far


def naive_attention(attention, config, x, mask, table):
    """Equation 4 of the paper, one pair of tokens after the other."""
    B, _, D = x.shape
    K = D // HEADS

    def heads(vectors):  # (..., D) -> (..., H, K)
        return vectors.view(*vectors.shape[:-1], HEADS, K)

    query, key, value = (heads(part(x)) for part in (attention.query, attention.key, attention.value))
    terms = config.pos_att_type if config.relative_attention else ()
    relative_key = heads((attention.relative_key or attention.key)(table))  # (R, H, K)
    relative_query = heads((attention.relative_query or attention.query)(table))
    mixed = torch.zeros(B, T, HEADS, K, dtype=x.dtype)
    for b in range(B):
        for h in range(HEADS):
            for i in range(T):
                scores = []
                for j in range(T):
                    bucket = i - j
                    if config.position_buckets > 0:
                        bucket = naive_bucket(i - j, config.position_buckets, config.max_distance)
                    row = min(max(bucket + config.span, 0), 2 * config.span - 1)
                    score = query[b, i, h] @ key[b, j, h]
                    if "c2p" in terms:
                        score = score + query[b, i, h] @ relative_key[row, h]
                    if "p2c" in terms:
                        score = score + key[b, j, h] @ relative_query[row, h]
                    scores.append(score if mask[b, j] else score - math.inf)
                weights = torch.softmax(torch.stack(scores) / math.sqrt(K * (1 + len(config.pos_att_type))), dim=0)
                mixed[b, i, h] = weights @ value[b, :, h]
    return x + attention.output(mixed.flatten(2))


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
    rows = relative_rows(T, config, x.device)
    with torch.no_grad():
        expected = naive_attention(attention, config, x, mask, table)
        found = attention(x, mask[:, None, None, :], *((table, rows) if relative else (None, None)))
    torch.testing.assert_close(found[mask], expected[mask], atol=1e-12, rtol=0)


def test_the_most_buckets():
    fields = {**CONFIGS["deberta-v2"], "max_relative_positions": 12}
    assert DebertaV2Config.from_fields({**fields, "position_buckets": 21}).span == 21
    with pytest.raises(ModelError, match="position_buckets must be -1, or from 4 to 21"):
        DebertaV2Config.from_fields({**fields, "position_buckets": 22})
