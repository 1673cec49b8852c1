"""One small training run with everything in it, for comparison with the reference live and from golden files.

Two objectives in turn over three epochs: ranking on triplets without duplicates in a batch, and cosine regression on pairs
in shuffled batches; warm-up, decay and clipping count; dropout is 0.
"""

import itertools
from pathlib import Path
from typing import Any

import torch

from minisbert import SentenceEncoder
from minisbert.models.registry import ARCHITECTURES
from minisbert.training.examples import Batch, Example, NoDuplicatesBatches, ShuffledBatches
from minisbert.training.log import StepReport
from minisbert.training.loop import fit
from minisbert.training.losses import CosineSimilarityLoss, MultipleNegativesRankingLoss, Objective
from minisbert.training.plan import Plan
from tests.tiny import NO_DROPOUT as NO_DROPOUT

EPOCHS, WARMUP_STEPS, LEARNING_RATE, WEIGHT_DECAY, MAX_GRAD_NORM = 3, 4, 1e-3, 0.01, 0.05
TRAINING_MODEL = "roberta"  # of the golden file

SUBJECTS = ["남자", "여자", "아이", "고양이"]
OBJECTS = ["밥", "빵", "물", "길"]
TRIPLETS = [
    Example(
        (
            f"한 {subject}가 {thing}을 먹는다.",
            f"{subject}가 {thing}을 먹고 있다.",
            f"두 {subject}는 {thing}에서 달린다.",
        )
    )
    for subject in SUBJECTS
    for thing in OBJECTS
]
PAIRS = [
    Example((f"{subject}가 {thing}을 먹는다", f"{other}는 {thing}을 마신다, 날씨가 춥다."), ((i + 2 * j) % 6) / 5)
    for i, (subject, other) in enumerate(itertools.pairwise(SUBJECTS))
    for j, thing in enumerate(OBJECTS)
]


class Fixed:
    """Batches drawn once, so that both sides get the same ones: iteration k yields list k."""

    def __init__(self, iterations: list[list[Batch]]) -> None:
        self.iterations = iterations
        self.next = 0

    def __len__(self) -> int:
        return len(self.iterations[0])

    def __iter__(self):
        self.next += 1
        return iter(self.iterations[(self.next - 1) % len(self.iterations)])


def fixed_batches() -> tuple[Fixed, Fixed]:
    """Four ranking batches and three regression batches an iteration (the last one smaller), enough for the run."""
    ranking, regression = NoDuplicatesBatches(TRIPLETS, 4, seed=777), ShuffledBatches(PAIRS, 5, seed=777)
    return Fixed([list(ranking) for _ in range(EPOCHS)]), Fixed([list(regression) for _ in range(EPOCHS)])


def train(model: SentenceEncoder, output: Path | None = None, **changes: Any) -> list[StepReport]:
    """Run our loop, with changes of the plan; returns what each step reported."""
    ranking, regression = fixed_batches()
    steps: list[StepReport] = []
    objectives = [
        Objective(ranking, MultipleNegativesRankingLoss(), "nli"),
        Objective(regression, CosineSimilarityLoss(), "sts"),
    ]
    defaults = {
        "epochs": EPOCHS,
        "learning_rate": LEARNING_RATE,
        "warmup_steps": WARMUP_STEPS,
        "weight_decay": WEIGHT_DECAY,
        "max_grad_norm": MAX_GRAD_NORM,
    }
    fit(model, objectives, Plan(**{**defaults, **changes}), output, on_step=steps.append)
    return steps


def compare(
    found: list[StepReport],
    expected: dict[str, list[float]],
    model: SentenceEncoder,
    their_parameters: dict[str, torch.Tensor],
) -> None:
    """Compare every step, and the parameters at the end, with what the reference did.

    In float64 all agree to rounding. In float32 a loss of scale 20 cannot agree better than 20 times the rounding of a
    cosine; and parameters whose exact gradient is zero (the bias of keys shifts all scores of a query alike) have rounding
    for a gradient, which Adam magnifies to whole steps of the learning rate.
    """
    exact = model.dtype == torch.float64
    values = {
        "losses": [value for step in found for value in step.losses.values()],
        "learning_rates": [step.learning_rate for step in found for _ in step.losses],
        "gradient_norms": [value for step in found for value in step.gradient_norms.values()],
    }
    for name, numbers in expected.items():
        found_numbers, expected_numbers = (torch.tensor(each, dtype=torch.float64) for each in (values[name], numbers))
        assert len(found_numbers) == len(expected_numbers)
        worst = ((found_numbers - expected_numbers).abs() / expected_numbers.abs().clamp(min=1)).max().item()  # NaN stays
        assert worst < (1e-11 if exact else 3e-5), f"{name} differ by {worst:.1e}"
    architecture = ARCHITECTURES[model.folder.config["model_type"]]
    names = architecture.tensor_names.by_checkpoint_name(model.encoder, 2)
    ours = dict(model.encoder.named_parameters())
    worst = torch.stack([(ours[name] - their_parameters[theirs]).abs().max() for theirs, name in names.items()]).max().item()
    assert worst < (1e-11 if exact else 0.2 * LEARNING_RATE), f"parameters differ by {worst:.1e}"
