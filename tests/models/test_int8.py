"""Proves the arithmetic of 8-bit products: sums of whole numbers exact, rounding within its bound, each token by itself."""

import os
import subprocess
import sys

import pytest
import torch

from minisbert.models import fast, int8
from minisbert.models.int8 import Int8Linear

if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
    pytest.skip("this processor has no 8-bit products", allow_module_level=True)

D, M = 96, 40


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def whole_numbers(rows, largest, seed):
    """Rows of whole numbers from -largest to largest, with 0 and `largest` among them."""
    numbers = torch.randint(-largest, largest + 1, (rows, D), generator=torch.Generator().manual_seed(seed))
    numbers[:, 0], numbers[:, 1] = largest, 0
    return numbers


def linear_and_float(seed=0):
    weight, bias = random(M, D, seed=seed), random(M, seed=seed + 1)
    exact = fast.Linear(D, M)
    exact.weight.data, exact.bias.data = weight, bias
    return Int8Linear(weight, bias), exact.requires_grad_(False)


@pytest.mark.parametrize("vnni", [True, False])
def test_sums_of_whole_numbers_are_exact(vnni, monkeypatch):
    if vnni and not torch.cpu._is_vnni_supported():
        pytest.skip("this processor has no VNNI instructions")
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: vnni)
    # Numbers of tokens from 0 to 255 and weights up to the largest: all scales are 1, and nothing is rounded.
    x, weight = whole_numbers(50, 255, seed=0).abs(), whole_numbers(M, int8.largest_weight(), seed=1)
    found = Int8Linear(weight.float(), torch.zeros(M))(x.float())
    assert torch.equal(found.long(), x @ weight.t())


EXTREMES = """
import sys, torch
torch.cpu._is_vnni_supported = lambda: False
from minisbert.models.int8 import Int8Linear
x = torch.tensor([255.0] * 63 + [0.0]).expand(3, 64)
print(Int8Linear(torch.full((2, 64), float(sys.argv[1])), torch.zeros(2))(x).unique().tolist())
"""


def test_sums_do_not_overflow_on_processors_without_vnni():
    """The largest factors that there are, all of one sign, with the products of AVX2."""
    command = [sys.executable, "-c", EXTREMES, "64"]
    result = subprocess.run(
        command, env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == str([63.0 * 64 * 255])


def test_without_a_bit_less_the_sums_would_overflow():
    """Why there are seven bits: with eight, the same products come out wrong where 16 bits hold them."""
    code = EXTREMES.replace("lambda: False", "lambda: True")
    command = [sys.executable, "-c", code, "127"]
    result = subprocess.run(
        command, env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() != str([63.0 * 127 * 255])


def test_the_product_is_the_plain_one():
    linear, exact = linear_and_float()
    x = random(3, 7, D, seed=9)
    torch.testing.assert_close(linear(x), int8.plain_linear(x, exact.weight, exact.bias), atol=1e-4, rtol=1e-5)


def test_rounding_is_within_its_bound():
    """Each factor is off by at most half its scale, and the sums by no more than what that makes with all signs alike."""
    linear, exact = linear_and_float()
    x = random(5, D, seed=9)
    half_x = (x.amax(1, keepdim=True) - x.amin(1, keepdim=True)) / 255 / 2
    half_w = exact.weight.abs().amax(1) / int8.largest_weight() / 2
    bound = half_x * exact.weight.abs().sum(1) + half_w * x.abs().sum(1, keepdim=True) + D * half_x * half_w
    error = (linear(x) - exact(x)).abs()
    assert (error <= bound + 1e-5).all()
    assert error.max() > 1e-3  # it does round


def test_a_token_does_not_depend_on_its_neighbours():
    linear, _ = linear_and_float()
    x = random(6, D, seed=3)
    loud = x.clone()
    loud[1:] *= 1000
    assert torch.equal(linear(x)[0], linear(loud)[0])
    assert torch.equal(linear(x)[0], linear(x[:1])[0])


def test_several_products_of_one_rounding():
    linears = [linear_and_float(seed)[0] for seed in range(3)]
    x = random(2, 5, D)
    for found, linear in zip(fast.products(x, *linears), linears, strict=True):
        assert torch.equal(found, linear(x))


def test_adding_a_product():
    linear, _ = linear_and_float()
    x, residual = random(2, 5, D), random(2, 5, M, seed=8)
    untouched = residual.clone()
    with torch.inference_mode():
        torch.testing.assert_close(fast.add_product(residual, linear, x), residual + linear(x), atol=1e-5, rtol=0)
    assert torch.equal(residual, untouched)


def test_a_weight_row_of_zeros_gives_its_bias():
    weight = random(M, D)
    weight[3] = 0
    bias = random(M, seed=1)
    assert torch.equal(Int8Linear(weight, bias)(random(4, D))[:, 3], bias[3].expand(4))


@pytest.mark.parametrize("constant", [0.0, 1.0, -3.0, 1e-42, 1e30])
def test_constant_activations(constant):
    """They need no rounding, so that only that of the weights is left."""
    linear, exact = linear_and_float()
    x = torch.full((2, D), constant)
    half_w = exact.weight.abs().amax(1) / int8.largest_weight() / 2
    assert ((linear(x) - exact(x)).abs() <= 1.001 * abs(constant) * D * half_w + 1e-6).all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_none_stay_visible(bad):
    linear, _ = linear_and_float()
    x = random(2, D)
    x[0, 5] = bad
    found = linear(x)
    assert not found[0].isfinite().any()
    assert found[1].isfinite().all()


def test_no_tokens():
    linear, _ = linear_and_float()
    assert linear(torch.empty(0, D)).shape == (0, M)
