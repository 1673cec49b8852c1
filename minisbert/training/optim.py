"""How parameters move: AdamW in two variants, what it decays, and the learning rate as a function of the step.

AdamW keeps, for every parameter, a running mean m of its gradients and v of their squares (its moments), and moves it by about
lr · m / sqrt(v): the rate says how far. m / sqrt(v) is near 1 or -1 where the last gradients have one sign, and near 0 where
they have not.

Papers: Loshchilov & Hutter 2019, "Decoupled Weight Decay Regularization", algorithm 2; Kingma & Ba 2015, "Adam".
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from minisbert.training.plan import Plan


def warmup_linear(step: int, warmup_steps: int, total_steps: int) -> float:
    """The factor of the learning rate, 0 to 1: up in a line, then down in a line ("WarmupLinear").

    AdamW divides a gradient by its usual size, which it does not know yet in the first steps, so early moves are large and
    nearly random; the way up keeps them small. The way down lets the parameters come to rest. The factor is the share of the
    warm-up that is done, then that of the way down that is left. Before the first step nothing is done: its rate is 0, and it
    only fills the moments. With a warm-up of 2 in 6 steps and a largest rate of 2e-5, the first three rates are
    2e-5 · 0/2 = 0, 2e-5 · 1/2 = 1e-5 and 2e-5 · 4/4 = 2e-5:

        2e-5              *
                                *
        1e-5        *                 *
                                            *
           0  *
        step  0     1     2     3     4     5

    Args:
        step: 0 to total_steps - 1.
        warmup_steps: the number of steps on the way up; 0 = the first step has the largest rate.
        total_steps: the number of all steps.

    >>> [warmup_linear(step, warmup_steps=2, total_steps=6) for step in range(6)]
    [0.0, 0.5, 1.0, 0.75, 0.5, 0.25]
    """
    if step < warmup_steps:
        return step / warmup_steps
    return (total_steps - step) / max(1, total_steps - warmup_steps)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups for AdamW: all weights decay, embeddings too, but not biases and not the parameters of LayerNorm.

    Decay pulls a parameter to 0, which keeps weights, the factors of long sums, from growing without need. A bias only shifts
    and needs no such pull. The weight of a LayerNorm belongs near 1; pulled to 0 it would fade out the whole layer.
    """
    no_decay = {  # by id: == of two tensors compares their elements
        id(parameter)
        for module in model.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if isinstance(module, nn.LayerNorm) or name == "bias"
    }
    parameters = list(model.parameters())
    decayed = [parameter for parameter in parameters if id(parameter) not in no_decay]
    others = [parameter for parameter in parameters if id(parameter) in no_decay]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


class OriginalAdamW(torch.optim.AdamW):
    """AdamW as BERT's authors and transformers before 5.0 had it: the jhgan models were trained with it.

    In step t it moves a weight w by

        w = w - lr · sqrt(1 - beta2^t) / (1 - beta1^t) · m / (sqrt(v) + eps)
        w = w - lr · weight_decay · w

    Two things differ from torch.optim.AdamW:

    1. Epsilon is added to sqrt(v), not to sqrt(v) / sqrt(1 - beta2^t), so it counts for more in the first steps. The class of
       torch does the same if its epsilon is eps / sqrt(1 - beta2^t), another one in each step.
    2. The decay comes after the update, on the updated weight. So the decay of torch's class is off, and done here.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float, eps: float) -> None:
        self.original_eps = eps
        self.decays = [group["weight_decay"] for group in groups]
        super().__init__([{**group, "weight_decay": 0.0} for group in groups], lr=lr, fused=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        shrinking = []  # the parameters of a group, and what they are multiplied with after the update
        for group, weight_decay in zip(self.param_groups, self.decays, strict=True):
            moved = [parameter for parameter in group["params"] if parameter.grad is not None]
            # One step count for all: a parameter has a gradient in every step or, if it is not used, in none.
            t = 1 + int(self.state[moved[0]].get("step", 0)) if moved else 1
            group["eps"] = self.original_eps / (1 - group["betas"][1] ** t) ** 0.5
            shrinking.append((moved if weight_decay else [], 1 - group["lr"] * weight_decay))
        super().step(closure)
        for parameters, factor in shrinking:
            for parameter in parameters:
                parameter.mul_(factor)


def build_optimizer(model: nn.Module, plan: Plan) -> torch.optim.Optimizer:
    """An optimizer over all parameters of `model`, which is on its final device: `plan.optimizer` says which.

    "adamw" is that of torch, usually with an epsilon of 1e-8; "original-adamw" is `OriginalAdamW`, usually with 1e-6.
    """
    groups = parameter_groups(model, plan.weight_decay)
    if plan.optimizer == "original-adamw":
        return OriginalAdamW(groups, lr=plan.learning_rate, eps=plan.eps)
    # The fused kernel reads and writes every parameter once.
    return torch.optim.AdamW(groups, lr=plan.learning_rate, eps=plan.eps, fused=True)
