"""Proves the building blocks: attention and activations by values, dropout by its place and what is left of all."""

import math

import pytest
import torch

from minisbert.models import layers
from minisbert.models.registry import ARCHITECTURES
from tests.comparison import record_dropouts
from tests.tiny import ROWS


def random_encoder(model_type, **fields):
    """An encoder in float64 with random weights, those of norms included."""
    architecture = ARCHITECTURES[model_type]
    encoder = architecture.encoder(architecture.read_config({**ROWS[model_type].fields, **fields})).double()
    generator = torch.Generator().manual_seed(0)
    for parameter in encoder.parameters():
        parameter.data.normal_(std=0.2, generator=generator)
    return encoder


def test_attention_worked_out_by_hand():
    query, key = torch.tensor([[[[2.0, 0.0]]]]), torch.tensor([[[[math.log(3) * math.sqrt(2) / 2, 5.0], [0.0, -7.0]]]])
    value = torch.tensor([[[[4.0, 8.0], [0.0, 40.0]]]])  # scores log 3 and 0: weights 3/4 and 1/4
    torch.testing.assert_close(layers.attention(query, key, value), torch.tensor([[[[3.0, 16.0]]]]))
    first_alone = layers.attention(query, key, value, mask=torch.tensor([True, False]))
    torch.testing.assert_close(first_alone, value[:, :, :1])
    assert not layers.attention(query, key, value, dropout=1.0).any()


@pytest.mark.parametrize(
    ("name", "at_one", "at_minus_one"),
    [  # x Φ(x); 0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³))); max(0, x); x / (1 + exp(-x)); tanh(x)
        ("gelu", 0.8413447, -0.1586553),
        ("gelu_new", 0.8411920, -0.1588080),
        ("gelu_pytorch_tanh", 0.8411920, -0.1588080),
        ("relu", 1.0, 0.0),
        ("silu", 0.7310586, -0.2689414),
        ("tanh", 0.7615942, -0.7615942),
    ],
)
def test_activations(name, at_one, at_minus_one):
    found = layers.ACTIVATIONS[name](torch.tensor([1.0, -1.0]))
    torch.testing.assert_close(found, torch.tensor([at_one, at_minus_one]), atol=1e-6, rtol=0)
    assert set(layers.ACTIVATIONS) == {"gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu", "tanh"}


@pytest.mark.parametrize("model_type", ROWS)
def test_shape_and_probability_of_every_dropout(model_type, monkeypatch):
    """Worked out from the papers; that the reference has the same calls is proved with it at hand, in parity/."""
    row = ROWS[model_type]
    encoder = random_encoder(model_type, **row.dropout(hidden=0.125, attention=0.25)).train()
    calls = record_dropouts(monkeypatch)
    input_ids, mask = torch.full((3, 37), 5), torch.ones(3, 37, dtype=torch.bool)
    encoder(input_ids, mask)
    places = {"tokens": ((3, 37, 24), 0.125), "scores": ((3, 2, 37, 37), 0.25), "table": ((16, 24), 0.125)}
    embedded, *in_layers = calls
    assert (embedded[0][:2], embedded[1]) == ((3, 37), 0.125)
    assert in_layers == [places[place] for place in row.layer_dropouts * encoder.config.layers]
    calls.clear()
    encoder.eval()(input_ids, mask)
    assert calls == []


@pytest.mark.parametrize("model_type", ROWS)
def test_dropout_falls_on_normalised_embeddings(model_type):
    encoder = random_encoder(model_type, **ROWS[model_type].dropout(hidden=1.0, attention=0.0)).train()
    seen = []
    encoder.embeddings.register_forward_hook(lambda module, arguments, embedded: seen.append(embedded))
    encoder(torch.tensor([[5, 6, 7]]))
    assert seen[0].shape[:2] == (1, 3)
    assert not seen[0].any()


@pytest.mark.parametrize("model_type", ["bert", "deberta-v2"])
def test_dropout_falls_on_what_is_added(model_type):
    layer = random_encoder(model_type, **ROWS[model_type].dropout(hidden=1.0, attention=0.0)).train().layers[0]
    x = torch.randn(2, 3, 24, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = layer(x, None, None, None) if model_type == "deberta-v2" else layer(x, None)
    torch.testing.assert_close(found, layer.feed_forward_norm(layer.attention_norm(x)), atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("model_type", "fields"),
    [
        ("bert", {"type_vocab_size": 2}),
        ("roberta", {"type_vocab_size": 2}),
        ("deberta-v2", {"type_vocab_size": 2, "position_biased_input": True}),
    ],
)
def test_no_segments_are_segments_of_zeros(model_type, fields):
    encoder = random_encoder(model_type, **fields).eval()
    input_ids = torch.arange(5, 35).view(3, 10)
    zeros = torch.zeros_like(input_ids)
    torch.testing.assert_close(encoder(input_ids), encoder(input_ids, None, zeros), atol=1e-12, rtol=0)
    assert not torch.equal(encoder(input_ids, None, zeros + 1), encoder(input_ids, None, zeros))


@pytest.mark.parametrize("model_type", [name for name, row in ROWS.items() if "layer_norm_eps" in row.fields])
def test_every_norm_has_the_epsilon_of_the_configuration(model_type):
    modules = random_encoder(model_type, layer_norm_eps=0.25).modules()
    found = [module.eps for module in modules if isinstance(module, torch.nn.LayerNorm)]
    assert found == [0.25] * (6 if model_type == "deberta-v2" else 5)
