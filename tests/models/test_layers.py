"""Proves the building blocks: activations by tabulated values, dropout by what is left when it drops all, bfloat16."""

import pytest
import torch

from minisbert.models import layers
from minisbert.models.registry import FAMILIES
from tests.comparison import record_dropouts
from tests.tiny import CONFIGS

ALL_DROPPED = {"hidden_dropout_prob": 1.0, "attention_probs_dropout_prob": 0.0}
SEGMENTS = {"type_vocab_size": 2, "position_biased_input": True}


def random_encoder(model_type, **fields):
    """An encoder in float64 with random weights, those of norms included."""
    family = FAMILIES[model_type]
    encoder = family.encoder(family.read_config({**CONFIGS[model_type], **fields})).double()
    generator = torch.Generator().manual_seed(0)
    for parameter in encoder.parameters():
        parameter.data.normal_(std=0.2, generator=generator)
    return encoder


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
    for mode in (torch.enable_grad, torch.inference_mode):
        with mode():
            found = layers.ACTIVATIONS[name](torch.tensor([1.0, -1.0]))
            torch.testing.assert_close(found, torch.tensor([at_one, at_minus_one]), atol=1e-6, rtol=0)
    assert set(layers.ACTIVATIONS) == {"gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu", "tanh"}


@pytest.mark.parametrize("model_type", CONFIGS)
def test_shape_and_probability_of_every_dropout(model_type, monkeypatch):
    """Worked out from the papers; that the reference has the same calls is proved with it at hand, in parity/."""
    encoder = random_encoder(model_type, hidden_dropout_prob=0.125, attention_probs_dropout_prob=0.25).train()
    calls = record_dropouts(monkeypatch)
    input_ids, mask = torch.full((3, 37), 5), torch.ones(3, 37, dtype=torch.bool)
    encoder(input_ids, mask)
    tokens, scores, relative_table = ((3, 37, 24), 0.125), ((3, 2, 37, 37), 0.25), ((16, 24), 0.125)
    layer = [*([relative_table] if model_type == "deberta-v2" else []), scores, tokens, tokens]
    assert calls == [tokens, *layer, *layer]
    calls.clear()
    encoder.eval()(input_ids, mask)
    assert calls == []


@pytest.mark.parametrize("model_type", CONFIGS)
def test_dropout_falls_on_what_is_added_and_on_normalised_embeddings(model_type):
    encoder = random_encoder(model_type, **ALL_DROPPED).train()
    assert torch.equal(encoder.embeddings(torch.tensor([[5, 6, 7]]), None), torch.zeros(1, 3, 24, dtype=torch.float64))
    x = torch.randn(2, 3, 24, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    layer = encoder.layers[0]
    found = layer(x, None, None, None) if model_type == "deberta-v2" else layer(x, None)
    torch.testing.assert_close(found, layer.feed_forward_norm(layer.attention_norm(x)), atol=1e-12, rtol=0)


@pytest.mark.parametrize("model_type", CONFIGS)
def test_no_segments_are_segments_of_zeros(model_type):
    encoder = random_encoder(model_type, **SEGMENTS if model_type == "deberta-v2" else {"type_vocab_size": 2}).eval()
    input_ids = torch.arange(5, 35).view(3, 10)
    zeros = torch.zeros_like(input_ids)
    torch.testing.assert_close(encoder(input_ids), encoder(input_ids, None, zeros), atol=1e-12, rtol=0)
    assert not torch.equal(encoder(input_ids, None, zeros + 1), encoder(input_ids, None, zeros))


@pytest.mark.parametrize("model_type", CONFIGS)
def test_every_norm_has_the_epsilon_of_the_configuration(model_type):
    norms = [
        each for each in random_encoder(model_type, layer_norm_eps=0.25).modules() if type(each).__name__ == "LayerNorm"
    ]
    assert [norm.eps for norm in norms] == [0.25] * (6 if model_type == "deberta-v2" else 5)


@pytest.mark.parametrize("gradients", [False, True])
def test_adding_to_a_residual(gradients):
    torch.manual_seed(0)
    linear, x, residual = layers.Linear(4, 6).double(), torch.randn(2, 3, 4).double(), torch.randn(2, 3, 6).double()
    untouched = residual.clone()
    with torch.set_grad_enabled(gradients):
        found = linear.eval().add_to(residual, x, dropout=0.5)
        all_dropped = linear.train().add_to(residual, x, dropout=1.0)
    exact = residual + torch.einsum("bti,oi->bto", x, linear.weight) + linear.bias
    torch.testing.assert_close(found, exact, atol=1e-12, rtol=0)
    assert torch.equal(all_dropped, residual)
    assert torch.equal(residual, untouched)
    assert found.requires_grad is gradients


@pytest.mark.parametrize("emulated", [False, True])
def test_adding_under_autocast_without_gradients(emulated, monkeypatch):
    """Residuals are float32 there, what is added bfloat16."""
    monkeypatch.setattr(layers, "EMULATES_BFLOAT16", emulated)
    linear, residual = layers.Linear(4, 6).eval(), torch.full((1, 2, 6), 1 + 2**-12)
    torch.nn.init.zeros_(linear.weight)
    torch.nn.init.zeros_(linear.bias)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = linear.add_to(residual, torch.ones(1, 2, 4, dtype=torch.bfloat16), dropout=0.0)
    assert torch.equal(found, residual)


@pytest.mark.parametrize("emulated", [False, True])
def test_linear_in_bfloat16(emulated, monkeypatch):
    monkeypatch.setattr(layers, "EMULATES_BFLOAT16", emulated)
    torch.manual_seed(0)
    linear, x = layers.Linear(64, 32).bfloat16(), torch.randn(5, 64).bfloat16()
    found = linear(x)
    assert found.dtype == torch.bfloat16
    exact = torch.nn.functional.linear(x.double(), linear.weight.double(), linear.bias.double())
    torch.testing.assert_close(found.double(), exact, atol=0.01, rtol=0.01)
    residual = torch.randn(1, 5, 32).bfloat16()
    with torch.no_grad():
        total = linear.eval().add_to(residual, x[None], dropout=0.0)
    torch.testing.assert_close(total.double(), residual.double() + exact, atol=0.02, rtol=0.02)
    if emulated:  # the product is rounded before the sum, so it was not taken in bfloat16
        assert torch.equal(total, residual + found)
