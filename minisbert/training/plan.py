"""Every hyper-parameter of a training run, once: the frozen `Plan`, and what is made from its fields.

Beside its default, each field has a `Rule`. The flags of train.py, the checks, the settings that a resumed run must agree in,
training.json and the model card all come from this table, so a new hyper-parameter is one new line. There is no torch here:
`train.py --help` does not wait for it.
"""

import argparse
import dataclasses
import math
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from minisbert.errors import InputError


@dataclass(frozen=True)
class Rule:
    """What a hyper-parameter is for, what it may be, and where it shows."""

    flag: str  # of train.py; "" = it has none
    help: str
    least: float = 0
    most: float = math.inf
    choices: tuple[str, ...] = ()  # for a field that holds a word
    agree: bool = False  # a resumed run must have the same value; numbers of steps are compared as a `Schedule`
    group: str = ""  # fields of one group exclude each other

    @property
    def argument(self) -> str:
        """Where argparse puts the value of the flag: --max-steps becomes max_steps."""
        return self.flag.lstrip("-").replace("-", "_")


def setting(flag: str, help: str, default: Any = dataclasses.MISSING, **rule: Any) -> Any:
    """A field of a plan: its default, and the parts of its `Rule`."""
    return dataclasses.field(default=default, metadata={"rule": Rule(flag, help, **rule)})


@dataclass(frozen=True)
class Schedule:
    """How many steps a run has; see `Plan.schedule`."""

    steps_per_epoch: int
    total_steps: int
    warmup_steps: int


@dataclass(frozen=True)
class Plan:
    """How to train: all hyper-parameters of `fit`; an InputError if one is out of bounds, or two exclude each other."""

    # fmt: off
    epochs: int = setting("--epochs", "times to go through the data", least=1)
    learning_rate: float = setting("--lr", "largest learning rate", 2e-5, least=1e-12, most=1, agree=True)
    warmup_steps: int = setting("--warmup-steps", "steps with a rising rate", 0, group="warm-up")
    weight_decay: float = setting("--weight-decay", "share of the rate by which weights shrink", 0.01, most=1, agree=True)
    max_grad_norm: float = setting("--max-grad-norm", "shorten longer gradients to this", 1.0, least=1e-6, most=1e9, agree=True)
    steps_per_epoch: int | None = setting("", "None = the batches of the objective with the fewest", None, least=1)
    evaluation_steps: int = setting("--evaluation-steps", "evaluate every N steps of an epoch (recipes: 1000)", 0)
    checkpoint_steps: int = setting("--checkpoint-steps", "write what --resume needs every N steps (recipes: 500)", 0)
    seed: int = setting("--seed", "of triplets, batches and dropout", 0, most=2**64 - 1, agree=True)
    max_steps: int | None = setting("--max-steps", "stop after N steps; the schedule ends there", None, least=1)
    optimizer: str = setting("", "see optim.py", "adamw", choices=("adamw", "original-adamw"), agree=True)
    eps: float = setting("", "epsilon of the optimizer", 1e-8, most=1, agree=True)
    warmup_ratio: float | None = setting("--warmup-ratio", "share of steps with a rising rate", None, most=1, group="warm-up")
    autocast: str = setting("--dtype", "of matrix products", "float32", choices=("float32", "bfloat16"), agree=True)
    recompute_activations: bool = setting("--recompute", "keep no activations: less memory, more time", False)
    # fmt: on

    def __post_init__(self) -> None:
        for field, rule, kind in _table(self):
            value = getattr(self, field.name)
            if hasattr(value, "item"):  # a number of numpy or torch: in Python's own form it can be written down
                value = value.item()
                object.__setattr__(self, field.name, value)
            if value is not None or field.default is not None:
                _check(rule, kind, value, field.name)
        if self.warmup_steps and self.warmup_ratio is not None:
            raise InputError("give either warmup_steps or warmup_ratio, not both")

    def schedule(self, batches: Sequence[int]) -> Schedule:
        """How many steps a run has, if its objectives have so many batches each; an InputError if one has none.

        An epoch ends when the objective with the fewest is through, unless `steps_per_epoch` says otherwise.

        >>> Plan(epochs=5, warmup_ratio=0.1).schedule([8885, 719])  # 359.5 steps of warm-up, rounded up
        Schedule(steps_per_epoch=719, total_steps=3595, warmup_steps=360)
        """
        fewest = min(batches, default=0)
        if fewest < 1:
            raise InputError("nothing to train on: fewer examples than one batch")
        steps_per_epoch = self.steps_per_epoch or fewest
        total = steps_per_epoch * self.epochs
        total = min(total, self.max_steps or total)
        warmup = self.warmup_steps if self.warmup_ratio is None else math.ceil(total * self.warmup_ratio)
        return Schedule(steps_per_epoch, total, warmup)

    def settings(self) -> dict[str, Any]:
        """What a resumed run must agree in."""
        return {field.name: getattr(self, field.name) for field, rule, _ in _table(self) if rule.agree}

    def with_flags(self, given: Mapping[str, Any]) -> "Plan":
        """This plan with what the flags change: `given` holds the values that argparse found, None where a flag is not given.

        A value of a group sets the others of its group back to their defaults.
        """
        found = {field.name: given.get(rule.argument) for field, rule, _ in _table(self)}
        changes = {name: value for name, value in found.items() if value is not None}
        groups = {rule.group for field, rule, _ in _table(self) if field.name in changes} - {""}
        reset = {field.name: field.default for field, rule, _ in _table(self) if rule.group in groups}
        return dataclasses.replace(self, **{**reset, **changes})


def add_flags(parser: argparse.ArgumentParser, plan: type[Plan] = Plan) -> None:
    """Give a command line the flags of all hyper-parameters that have one; what is not given is None."""
    groups: dict[str, Any] = {"": parser}
    for _, rule, kind in _table(plan):
        if rule.group not in groups:
            groups[rule.group] = parser.add_mutually_exclusive_group()
        options: dict[str, Any] = {"type": kind, "metavar": "N" if kind is int else "X"}
        if kind is bool:
            options = {"action": "store_true", "default": None}
        elif rule.choices:
            options = {"choices": rule.choices}
        if rule.flag:
            groups[rule.group].add_argument(rule.flag, help=rule.help, **options)


def check_flags(given: Mapping[str, Any], plan: type[Plan] = Plan) -> None:
    """Refuse values of flags that are out of bounds, with an InputError that names the flag."""
    for _, rule, kind in _table(plan):
        if given.get(rule.argument) is not None:
            _check(rule, kind, given[rule.argument], rule.flag)


def check_number(name: str, value: float, least: float, most: float = math.inf) -> None:
    """Refuse a number out of bounds, NaN too, with an InputError that begins with `name`."""
    if not least <= value <= most:
        expected = f"at least {least}" if most == math.inf else f"from {least} to {most}"
        raise InputError(f"{name} must be {expected}, found {value}")


def _check(rule: Rule, kind: Any, value: Any, name: str) -> None:
    if rule.choices:
        if value not in rule.choices:
            raise InputError(f"{name} must be {' or '.join(rule.choices)}, found {value!r}")
    elif not isinstance(value, (int, float) if kind is float else kind):
        raise InputError(f"{name} must be of the type {kind.__name__}, found {value!r}")
    else:
        check_number(name, value, rule.least, rule.most)


def _table(plan: Plan | type[Plan]) -> "Iterator[tuple[dataclasses.Field[Any], Rule, type]]":
    """The fields of a plan with their rules and types; the type of `int | None` is int."""
    for field in dataclasses.fields(plan):
        yield field, field.metadata["rule"], (typing.get_args(field.type) or (field.type,))[0]
