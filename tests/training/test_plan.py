"""Proves that a hyper-parameter is written once: flag, bounds, resume check, training.json and card come from the table."""

import argparse
import dataclasses
import json
import math

import pytest

from minisbert import training
from minisbert.errors import InputError
from minisbert.training.examples import ShuffledBatches
from minisbert.training.loop import fit
from minisbert.training.losses import CosineSimilarityLoss, Objective
from minisbert.training.model_card import write_model_card, write_training_record
from minisbert.training.plan import Plan, Schedule, add_flags, check_flags, setting
from minisbert.training.recipes import Recipe, Task
from tests.tiny import tiny_model
from tests.training.training_case import PAIRS


@dataclasses.dataclass(frozen=True)
class WiderPlan(Plan):
    """A plan with one more hyper-parameter, added to the table and nowhere else."""

    smoothing: float = setting("--smoothing", "share of the label that is spread", 0.1, most=1, agree=True)


def parsed(*arguments, plan=Plan):
    parser = argparse.ArgumentParser()
    add_flags(parser, plan)
    return vars(parser.parse_args(arguments))


def test_a_new_hyper_parameter_is_a_flag_with_bounds_and_help(capsys):
    given = parsed("--smoothing", "0.3", plan=WiderPlan)
    assert WiderPlan(1).with_flags(given) == WiderPlan(1, smoothing=0.3)
    with pytest.raises(InputError, match=r"^--smoothing must be from 0 to 1, found 2\.0$"):
        check_flags(parsed("--smoothing", "2", plan=WiderPlan), WiderPlan)
    with pytest.raises(SystemExit):
        parsed("--help", plan=WiderPlan)
    assert "--smoothing X" in capsys.readouterr().out


def test_a_resumed_run_must_agree_in_a_new_hyper_parameter(tmp_path):
    objectives = [Objective(ShuffledBatches(PAIRS, 4, 1), CosineSimilarityLoss(), "sts")]
    plan = WiderPlan(1, max_steps=2, checkpoint_steps=1)
    fit(tiny_model(), objectives, plan, tmp_path)
    with pytest.raises(InputError, match=r"of another run, with smoothing 0\.1 instead of 0\.2"):
        fit(tiny_model(), objectives, dataclasses.replace(plan, smoothing=0.2), tmp_path, resume=True)


def test_a_new_hyper_parameter_is_written_down(tmp_path):
    recipe = Recipe("mine", "team/model", (Task("own", "cosine", 4),), WiderPlan(1, smoothing=0.25))
    write_training_record(tmp_path, recipe, {}, [], {}, {}, 1.0)
    write_model_card(tmp_path, tiny_model(), recipe, [], None, {}, {})
    assert json.loads((tmp_path / "training.json").read_text(encoding="utf-8"))["recipe"]["smoothing"] == 0.25
    assert "\n- `smoothing`: 0.25\n" in (tmp_path / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, found 0"),
        ({"epochs": None}, "epochs must be of the type int, found None"),
        ({"epochs": 1.5}, "epochs must be of the type int, found 1.5"),
        ({"learning_rate": math.nan}, "learning_rate must be from 1e-12 to 1, found nan"),
        ({"max_grad_norm": math.inf}, "max_grad_norm must be from 1e-06 to 1000000000.0, found inf"),
        ({"max_steps": 0}, "max_steps must be at least 1, found 0"),
        ({"autocast": "float16"}, "autocast must be float32 or bfloat16, found 'float16'"),
        ({"recompute_activations": "yes"}, "recompute_activations must be of the type bool, found 'yes'"),
        ({"warmup_steps": 3, "warmup_ratio": 0.1}, "give either warmup_steps or warmup_ratio, not both"),
    ],
)
def test_bad_values_are_refused(values, message):
    with pytest.raises(InputError) as caught:
        Plan(**{"epochs": 1, **values})
    assert str(caught.value) == message


def test_every_flag_changes_its_field_alone():
    plan = Plan(2, seed=5, warmup_ratio=0.1)
    assert plan.with_flags(parsed()) == plan
    for field in dataclasses.fields(Plan):
        rule = field.metadata["rule"]
        if rule.flag and field.name not in ("warmup_steps", "warmup_ratio"):
            value = {"--dtype": "bfloat16", "--recompute": True}.get(rule.flag, 1)
            flags = [rule.flag] if value is True else [rule.flag, str(value)]
            assert plan.with_flags(parsed(*flags)) == dataclasses.replace(plan, **{field.name: value})


def test_one_form_of_the_warm_up_takes_the_place_of_the_other():
    assert Plan(1, warmup_ratio=0.1).with_flags(parsed("--warmup-steps", "7")) == Plan(1, warmup_steps=7)
    assert Plan(1, warmup_steps=7).with_flags(parsed("--warmup-ratio", "0")) == Plan(1, warmup_ratio=0.0)


def test_the_number_of_steps():
    assert Plan(2, warmup_steps=3).schedule([5, 4]) == Schedule(4, 8, 3)
    assert Plan(2, steps_per_epoch=7).schedule([5, 4]) == Schedule(7, 14, 0)
    assert Plan(2, max_steps=5, warmup_ratio=0.5).schedule([5, 4]) == Schedule(4, 5, 3), "a share of the steps taken"
    assert Plan(2, max_steps=99, warmup_ratio=1.0).schedule([5]) == Schedule(5, 10, 10)


def test_what_the_package_exports():
    assert training.Plan is Plan and training.fit is fit and training.Objective is Objective
    assert all(getattr(training, name).__name__ == name for name in training.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'Trainer'"):
        training.Trainer  # noqa: B018
