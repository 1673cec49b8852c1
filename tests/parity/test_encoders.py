"""Proves that the encoders compute what transformers computes: outputs, gradients, and every dropout call.

float64, weights of standard deviation 0.2, a ragged batch, evaluation and training mode, over the grid of DeBERTa-v2 options.
"""

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("sentence_transformers")

from minisbert.models.registry import ARCHITECTURES
from tests.comparison import CASES, compare, ragged_batch, record_dropouts
from tests.parity.reference import record, reference_model
from tests.tiny import ROWS

pytestmark = pytest.mark.reference


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


@pytest.mark.parametrize("model_type", ROWS)
def test_dropout_falls_where_the_reference_has_it(model_type, monkeypatch):
    row = ROWS[model_type]
    fields = {**row.fields, **row.dropout(hidden=0.125, attention=0.25)}
    architecture = ARCHITECTURES[model_type]
    ours = architecture.encoder(architecture.read_config(fields)).double()
    batch = ragged_batch(ours.config)
    reference = reference_model(fields, attn_implementation="eager")
    calls = record_dropouts(monkeypatch)
    reference.train()(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"].long())
    expected = list(calls)
    calls.clear()
    ours.train()(batch["input_ids"], batch["attention_mask"])
    assert len(expected) == 1 + ours.config.layers * len(row.layer_dropouts)
    assert calls == expected
    calls.clear()
    ours.eval()(batch["input_ids"], batch["attention_mask"])
    assert calls == []
