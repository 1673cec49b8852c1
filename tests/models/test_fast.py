"""Proves that everything that is there for speed computes what its plain form computes."""

import pytest
import torch

from minisbert.models import fast, layers
from minisbert.models.layers import EncoderLayer, MultiHeadAttention

B, H, T, K = 2, 3, 5, 4
D = H * K


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("masked", [False, True])
def test_attention(masked):
    query, key, value = (random(B, H, T, K, seed=seed) for seed in range(3))
    mask = (torch.arange(T) < torch.tensor([[T], [2]]))[:, None, None, :] if masked else None
    expected = layers.attention(query, key, value, mask)
    torch.testing.assert_close(fast.attention(query, key, value, mask, dropout=0.0), expected, atol=1e-12, rtol=0)


def test_attention_with_numbers_added_to_the_scores():
    query, key, value = (random(B, H, T, K, seed=seed) for seed in range(3))
    bias = random(B, H, T, T, seed=3)
    expected = (0.3 * query @ key.transpose(-1, -2) + bias).softmax(-1) @ value
    found = fast.attention(query, key, value, bias, dropout=0.0, scale=0.3)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("activation", layers.ACTIVATIONS)
def test_a_layer_without_gradients_is_the_layer_with_them(activation):
    layer = EncoderLayer(MultiHeadAttention(D, H, 0.1), D, 20, activation, norm_eps=1e-5, dropout=0.1).double().eval()
    for number, parameter in enumerate(layer.parameters()):
        parameter.data = 0.3 * random(*parameter.shape, seed=number)
    x = random(B, T, D, seed=99)
    untouched = x.clone()
    mask = (torch.arange(T) < torch.tensor([[T], [3]]))[:, None, None, :]
    plain = layer(x, mask)
    assert plain.requires_grad
    with torch.inference_mode():
        found = layer(x, mask)
    torch.testing.assert_close(found, plain.detach(), atol=1e-12, rtol=0)
    assert torch.equal(x, untouched)


def test_dropout_falls_in_training_with_and_without_gradients():
    layer = EncoderLayer(MultiHeadAttention(D, H, 0.0), D, 20, "gelu", norm_eps=1e-5, dropout=1.0).double().train()
    x = random(B, T, D)
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            torch.testing.assert_close(layer(x, None), layer.feed_forward_norm(layer.attention_norm(x)), atol=1e-12, rtol=0)


@pytest.mark.parametrize("activation", layers.ACTIVATIONS.values())
def test_activations(activation):
    x = random(7, 5)
    expected = activation(x)
    with torch.no_grad():
        assert torch.equal(fast.activate(activation, x.clone()), expected)


def test_adding_a_product():
    linear, x, residual = fast.Linear(4, 6).double(), random(2, 3, 4), random(2, 3, 6, seed=1)
    untouched = residual.clone()
    with torch.no_grad():
        found = fast.add_product(residual, linear, x)
    exact = residual + torch.einsum("bti,oi->bto", x, linear.weight) + linear.bias
    torch.testing.assert_close(found, exact, atol=1e-12, rtol=0)
    assert torch.equal(residual, untouched)


@pytest.mark.parametrize("emulated", [False, True])
def test_adding_a_product_under_autocast(emulated, monkeypatch):
    """Residuals are float32 there, what is added bfloat16."""
    monkeypatch.setattr(fast, "EMULATES_BFLOAT16", emulated)
    linear, residual = fast.Linear(4, 6), torch.full((1, 2, 6), 1 + 2**-12)
    torch.nn.init.zeros_(linear.weight)
    torch.nn.init.zeros_(linear.bias)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = fast.add_product(residual, linear, torch.ones(1, 2, 4, dtype=torch.bfloat16))
    assert torch.equal(found, residual)


@pytest.mark.parametrize("emulated", [False, True])
def test_linear_in_bfloat16(emulated, monkeypatch):
    monkeypatch.setattr(fast, "EMULATES_BFLOAT16", emulated)
    linear, x = fast.Linear(64, 32).bfloat16(), random(5, 64).bfloat16()
    found = linear(x)
    assert found.dtype == torch.bfloat16
    exact = torch.nn.functional.linear(x.double(), linear.weight.double(), linear.bias.double())
    torch.testing.assert_close(found.double(), exact, atol=0.01, rtol=0.01)
    residual = random(1, 5, 32, seed=1).bfloat16()
    with torch.no_grad():
        total = fast.add_product(residual, linear, x[None])
    torch.testing.assert_close(total.double(), residual.double() + exact, atol=0.02, rtol=0.02)
    if emulated:  # the product is rounded before the sum, so it was not taken in bfloat16
        assert torch.equal(total, residual + found)
