"""Proves the encoders without the reference libraries: golden files, exact invariances, and that every option counts.

The golden files hold what transformers computed (tests/golden/record.py); the invariances are bit for bit, because a
row that leaks into another one by the last digit leaks.
"""

import json
import zlib
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from minisbert.errors import ModelError
from minisbert.models.registry import ARCHITECTURES
from tests.comparison import GOLDEN_CASES, compare, ragged_batch
from tests.tiny import CONFIGS, ROWS, tiny_model

GOLDEN = Path(__file__).parents[1] / "golden"


def config_of(model_type):
    return ARCHITECTURES[model_type].read_config(CONFIGS[model_type])


def load_golden(case):
    path = GOLDEN / f"{case}.safetensors"
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["config"]), load_file(path)


@pytest.mark.parametrize("case", GOLDEN_CASES)
def test_golden(case, tmp_path):
    fields, recording = load_golden(case)
    compare(fields, recording, tmp_path)


@pytest.mark.cuda
@pytest.mark.parametrize("case", GOLDEN_CASES)
def test_golden_on_cuda(case, tmp_path):
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    fields, recording = load_golden(case)
    compare(fields, recording, tmp_path, device="cuda")


def encode(model_type, input_ids, attention_mask):
    with torch.inference_mode():
        return tiny_model(model_type).encoder(input_ids, attention_mask)


@pytest.mark.parametrize("model_type", CONFIGS)
def test_other_rows_change_nothing(model_type):
    batch = ragged_batch(config_of(model_type))
    input_ids, mask = batch["input_ids"], batch["attention_mask"]
    expected = encode(model_type, input_ids, mask)
    changed = input_ids.clone()
    changed[0] = changed[0].flip(0)
    assert torch.equal(encode(model_type, changed, mask)[1:], expected[1:])
    assert not torch.equal(encode(model_type, changed, mask)[0], expected[0])


@pytest.mark.parametrize("model_type", CONFIGS)
def test_the_order_of_rows_changes_nothing(model_type):
    batch = ragged_batch(config_of(model_type))
    input_ids, mask = batch["input_ids"], batch["attention_mask"]
    turned = encode(model_type, input_ids.flip(0), mask.flip(0)).flip(0)
    assert torch.equal(turned, encode(model_type, input_ids, mask))


@pytest.mark.parametrize("model_type", CONFIGS)
def test_ids_under_padding_change_nothing(model_type):
    batch = ragged_batch(config_of(model_type))
    input_ids, mask = batch["input_ids"], batch["attention_mask"]
    changed = torch.where(mask, input_ids, 7)
    assert torch.equal(encode(model_type, changed, mask)[mask], encode(model_type, input_ids, mask)[mask])


@pytest.mark.parametrize("model_type", CONFIGS)
def test_a_mask_of_real_tokens_alone_is_no_mask(model_type):
    input_ids = ragged_batch(config_of(model_type))["input_ids"][:1]
    expected = encode(model_type, input_ids, torch.ones_like(input_ids, dtype=torch.bool))
    torch.testing.assert_close(encode(model_type, input_ids, None), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("model_type", CONFIGS)
def test_a_text_of_one_token(model_type):
    padding = config_of(model_type).pad_token_id
    padded = encode(model_type, torch.tensor([[5, padding, padding]]), torch.tensor([[True, False, False]]))
    torch.testing.assert_close(encode(model_type, torch.tensor([[5]]), None), padded[:, :1], atol=1e-6, rtol=0)


def outcome(model_type, fields):
    """What a case comes to: the output in training mode, or None if the batch does not fit the model any more."""
    architecture = ARCHITECTURES[model_type]
    encoder = architecture.encoder(architecture.read_config(fields)).double().train()
    for (
        name,
        parameter,
    ) in encoder.named_parameters():  # by name and place, so that what a field adds changes nothing else
        numbers = torch.arange(parameter.numel()).double() * 7 + zlib.crc32(name.encode())
        parameter.data = 0.3 * numbers.sin().view_as(parameter)
    batch = ragged_batch(config_of(model_type))
    torch.manual_seed(0)
    try:
        return encoder(batch["input_ids"], batch["attention_mask"])
    except IndexError:
        return None


@pytest.mark.parametrize(
    ("model_type", "name"),
    [(model_type, name) for model_type, fields in CONFIGS.items() for name in fields if name != "model_type"],
)
def test_every_field_counts(model_type, name):
    row = ROWS[model_type]
    assert name in row.other_values, "a new field needs a value there"
    fields = {**row.fields, **row.dropout(0.1, 0.1)}
    expected = outcome(model_type, fields)
    found = outcome(model_type, {**fields, name: row.other_values[name]})
    assert found is not None or name in ("vocab_size", "max_position_embeddings", "pad_token_id"), "what may run out"
    same = found is not None and found.shape == expected.shape and torch.equal(found, expected)
    assert same == (name in row.without_effect)


@pytest.mark.parametrize(
    ("model_type", "name", "value"),
    [
        ("deberta-v2", "conv_kernel_size", 3),
        ("deberta-v2", "embedding_size", 12),
        ("deberta-v2", "norm_rel_ebd", "batch_norm"),
        ("deberta-v2", "pos_att_type", ["p2p"]),
        ("deberta-v2", "pos_att_type", []),
    ],
)
def test_what_is_not_supported_is_refused_by_name(model_type, name, value):
    with pytest.raises(ModelError, match=name):
        ARCHITECTURES[model_type].read_config({**CONFIGS[model_type], name: value})
