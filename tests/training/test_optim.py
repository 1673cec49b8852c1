"""Proves the schedule by values worked out by hand, what decays, and both variants of AdamW against their formulas."""

import numpy as np
import pytest
import torch
from torch import nn

from minisbert.errors import InputError
from minisbert.training.optim import OriginalAdamW, build_optimizer, parameter_groups, warmup_linear
from minisbert.training.plan import Plan
from tests.tiny import CONFIGS, tiny_model

LEARNING_RATE, WEIGHT_DECAY, BETA1, BETA2 = 0.1, 0.3, 0.9, 0.999
RATES = [0.1, 0.02, 0.07, 0.0, 0.05, 0.01]  # as a schedule would set them, step by step


def plan(name, eps):
    return Plan(1, learning_rate=LEARNING_RATE, weight_decay=WEIGHT_DECAY, optimizer=name, eps=eps)


def test_warm_up_worked_out_by_hand():
    assert [warmup_linear(step, 4, 10) for step in range(4)] == [0, 0.25, 0.5, 0.75]
    assert [warmup_linear(step, 4, 10) for step in (4, 7, 9)] == [1, 0.5, pytest.approx(1 / 6)]


def test_warm_up_at_its_edges():
    assert [warmup_linear(step, 0, 2) for step in range(2)] == [1, 0.5]
    assert warmup_linear(10, 4, 10) == 0
    assert [warmup_linear(step, 8, 4) for step in range(4)] == [0, 0.125, 0.25, 0.375]  # the top is never reached
    assert warmup_linear(4, 4, 4) == 0


@pytest.mark.parametrize("model_type", CONFIGS)
def test_what_decays(model_type):
    model = tiny_model(model_type)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decaying, no_decay = ([names[id(each)] for each in group["params"]] for group in parameter_groups(model, 0.01))
    assert sorted(decaying + no_decay) == sorted(names.values())
    # As by name: neither biases nor anything of a LayerNorm decay.
    assert no_decay == [name for name in names.values() if name.endswith("bias") or "norm" in name.lower()]
    embeddings = [name for name in decaying if "embeddings" in name or "relative" in name]
    tables = [name for name, each in model.named_modules() if isinstance(each, nn.Embedding)]
    assert embeddings == [f"{name}.weight" for name in tables], "all embeddings decay, the relative table too"


def published_formula(weights, gradients, eps, decay, original):
    """Several steps in float64; `original` as in BERT, else as in torch."""
    w, m, v = weights.copy(), np.zeros_like(weights), np.zeros_like(weights)
    for t, (g, rate) in enumerate(zip(gradients, RATES, strict=True), start=1):
        m = BETA1 * m + (1 - BETA1) * g
        v = BETA2 * v + (1 - BETA2) * g**2
        if original:
            w = w - rate * np.sqrt(1 - BETA2**t) / (1 - BETA1**t) * m / (np.sqrt(v) + eps)
            w = w - rate * decay * w
        else:
            w = w - rate * decay * w
            w = w - rate * (m / (1 - BETA1**t)) / (np.sqrt(v / (1 - BETA2**t)) + eps)
    return w


def small_model():
    model = nn.Module()
    model.weight, model.bias, model.idle = (nn.Parameter(torch.empty(n, dtype=torch.float64)) for n in (5, 3, 2))
    for parameter in model.parameters():
        parameter.data.normal_(generator=torch.Generator().manual_seed(0))
    return model


def gradients(shape, steps):
    # Small, so that epsilon counts.
    return 1e-4 * np.random.default_rng(shape).standard_normal((steps, shape))


def move(model, optimizer, steps):
    for step in steps:
        model.weight.grad, model.bias.grad = (torch.from_numpy(gradients(n, 6)[step]) for n in (5, 3))
        for group in optimizer.param_groups:
            group["lr"] = RATES[step]
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize(("name", "eps"), [("adamw", 1e-8), ("adamw", 1e-4), ("original-adamw", 1e-6)])
def test_both_variants_follow_their_formulas(name, eps):
    model, before = small_model(), small_model()
    move(model, build_optimizer(model, plan(name, eps)), range(6))
    for parameter, was, decay in ((model.weight, before.weight, WEIGHT_DECAY), (model.bias, before.bias, 0)):
        expected = published_formula(was.detach().numpy(), gradients(len(was), 6), eps, decay, name != "adamw")
        np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=0, atol=1e-12)
    assert torch.equal(model.idle, before.idle), "without a gradient there is neither update nor decay"


def test_the_variants_differ():
    models = [small_model(), small_model()]
    for name, model in zip(("adamw", "original-adamw"), models, strict=True):
        move(model, build_optimizer(model, plan(name, 1e-6)), range(6))
    assert (models[0].weight - models[1].weight).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["adamw", "original-adamw"])
def test_resumed_from_its_state(name):
    whole = small_model()
    move(whole, build_optimizer(whole, plan(name, 1e-6)), range(6))
    model = small_model()
    optimizer = build_optimizer(model, plan(name, 1e-6))
    move(model, optimizer, range(3))
    resumed = build_optimizer(model, plan(name, 1e-6))
    for parameter, moments in optimizer.state.items():
        resumed.state[parameter] |= {key: value.clone() for key, value in moments.items()}
    move(model, resumed, range(3, 6))
    for parameter, expected in zip(model.parameters(), whole.parameters(), strict=True):
        assert torch.equal(parameter, expected)


def test_a_step_without_any_gradient():
    model = small_model()
    optimizer = OriginalAdamW(parameter_groups(model, WEIGHT_DECAY), LEARNING_RATE, 1e-6)
    optimizer.step()
    assert torch.equal(model.weight, small_model().weight)


def test_an_unknown_optimizer_is_refused():
    with pytest.raises(InputError, match="adamw or original-adamw, found 'original_adamw'"):
        Plan(1, optimizer="original_adamw")
