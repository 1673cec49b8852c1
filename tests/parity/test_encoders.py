"""Proves that the encoders compute what transformers computes: outputs, gradients, and every dropout call.

float64, weights of standard deviation 0.2, a ragged batch, evaluation and training mode, over the grid of DeBERTa-v2 options.
"""

import pytest
import torch
from torch import nn

pytest.importorskip("transformers")
pytest.importorskip("sentence_transformers")

from minisbert.families import FAMILIES
from tests.comparison import CASES, compare, ragged_batch
from tests.parity.reference import record, reference_model
from tests.tiny import CONFIGS

pytestmark = pytest.mark.reference

ATTENTION_DROPOUT, HIDDEN_DROPOUT = 0.25, 0.125


@pytest.mark.parametrize("case", CASES)
def test_outputs_and_gradients(case, tmp_path):
    compare(CASES[case], record(CASES[case]), tmp_path)


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("case", CASES)
def test_outputs_and_gradients_on_cuda(case, dtype, tmp_path):
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    compare(CASES[case], record(CASES[case]), tmp_path, device="cuda", dtype=dtype)


def record_dropouts(monkeypatch):
    """Note the shape and probability of every dropout that is applied, also of that inside fused attention."""
    calls = []
    dropout, attention = nn.functional.dropout, nn.functional.scaled_dot_product_attention

    def noted_dropout(x, p=0.5, training=True, inplace=False):
        if training and p > 0:
            calls.append((tuple(x.shape), p))
        return dropout(x, p, training, inplace)

    def noted_attention(query, key, value, attn_mask=None, dropout_p=0.0, *rest, **options):
        if dropout_p > 0:
            calls.append(((*query.shape[:3], key.shape[2]), dropout_p))
        return attention(query, key, value, attn_mask, dropout_p, *rest, **options)

    monkeypatch.setattr(nn.functional, "dropout", noted_dropout)
    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", noted_attention)
    return calls


@pytest.mark.parametrize("model_type", CONFIGS)
def test_dropout_falls_where_the_reference_has_it(model_type, monkeypatch):
    fields = {
        **CONFIGS[model_type],
        "hidden_dropout_prob": HIDDEN_DROPOUT,
        "attention_probs_dropout_prob": ATTENTION_DROPOUT,
    }
    batch = ragged_batch(fields)
    family = FAMILIES[model_type]
    ours = family.encoder(family.read_config(fields)).double()
    reference = reference_model(fields, attn_implementation="eager")
    calls = record_dropouts(monkeypatch)
    reference.train()(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"].long())
    expected = list(calls)
    calls.clear()
    ours.train()(batch["input_ids"], batch["attention_mask"])
    assert len(expected) == 1 + fields["num_hidden_layers"] * (4 if model_type == "deberta-v2" else 3)
    assert calls == expected
    calls.clear()
    ours.eval()(batch["input_ids"], batch["attention_mask"])
    assert calls == []
