"""The training loop: several objectives in turn over one model, step for step as sentence-transformers 2.x trained.

That order of things (its `fit`, kept in 6.2.0 as `old_fit`, against which this was checked) is what the published Korean
models came from, and newer trainers do not repeat it. In each step every objective in turn takes a batch and moves the
parameters; what happens there is in step.py. With five batches in a round of one objective and three in one of another:

    step    1       2       3   |   4       5       6       an epoch ends when the fewest batches are through
    NLI     1       2       3   |   4       5       1       the longer one goes on where it was, then a new round
    STS         1       2     3 |       1       2       3   each has its own AdamW; both move the same parameters

Two things are done differently: the texts of a batch are sorted by length and cut into chunks with little padding
(batching.py), and AdamW is one fused kernel. The result is the same, except for which numbers dropout sets to zero
(`step.embed_columns` says why). Under torchrun, every process takes its share of each batch.
"""

import contextlib
import dataclasses
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from minisbert.distributed import check_agreement, gather, is_main_process, process_rank
from minisbert.errors import InputError
from minisbert.sentence_encoder import SentenceEncoder
from minisbert.training.evaluators import Evaluator
from minisbert.training.examples import BatchStream
from minisbert.training.log import StepReport, TrainingLog
from minisbert.training.losses import Loss, Objective
from minisbert.training.optim import build_optimizer, warmup_linear
from minisbert.training.plan import Plan
from minisbert.training.step import train_step
from minisbert.training.training_state import load_state, run_settings, save_state

TRAINING_STATES = "checkpoints"  # the folder inside the output folder


class Stopped(Exception):
    """`should_stop` said so; a training state of this step has been written if there is an output folder."""


def fit(
    model: SentenceEncoder,
    objectives: Sequence[Objective],
    plan: Plan,
    output: str | os.PathLike[str] | None = None,
    evaluator: Evaluator | None = None,
    resume: bool = False,
    on_step: Callable[[StepReport], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> float | None:
    """Train `model` in place.

    Args:
        model: on its device, in float32 (or float64).
        objectives: taken in turn in each step; one whose batches run out goes on with a new round of them.
        plan: all hyper-parameters.
        output: folder for the model (the best one, or the last one without an evaluator), metrics and training states.
        evaluator: called every `plan.evaluation_steps` steps of an epoch and at its end; the best model is kept in `output`.
        resume: go on from the last training state in `output`, if there is one: the parameters and the moments of every AdamW.
            Batches and dropout are drawn again from seeds, so the result is the same to the bit on a CPU (a GPU adds in
            changing order). Without, training states and metrics of an earlier run in `output` are removed.
        on_step: called after each step and its evaluation, in every process.
        should_stop: asked after each step; with several processes, one that says so stops all.

    Returns:
        The best score of the evaluator, None without one. `model` has the last weights, `output` the best ones.

    Raises:
        NonFiniteError: a loss or a gradient is NaN or infinite; no parameter has been moved by it.
        InputError: there is nothing to train on, the model is not in float32, or the run to be resumed was another one.
        ModelError: all training states of the run that is to be resumed are damaged.
        OSError: `output` cannot be written to.
        Stopped: `should_stop` returned True.
    """
    if resume and output is None:
        raise InputError("nothing to resume: no output folder is given")
    if model.dtype == torch.int8:
        raise InputError("an int8 model cannot be trained: load it as float32")
    if model.dtype.itemsize < 4:  # bytes
        raise InputError(f"a model in {model.dtype} loses small updates; load it in float32, and see Plan.autocast")
    run = _Run(model, objectives, plan, None if output is None else Path(output), evaluator)
    with training_mode(model), contextlib.closing(run.log):
        first = run.begin(resume)
        for step in range(first, run.schedule.total_steps):
            report = run.take_step(step)
            report = run.evaluate_if_due(report)
            if on_step is not None:
                on_step(report)
            stopping = should_stop is not None and any(gather(should_stop()))
            if stopping or (plan.checkpoint_steps and report.step % plan.checkpoint_steps == 0):
                run.save_state(report.step)
            if stopping:
                raise Stopped(report.step)
    if evaluator is None and output is not None and is_main_process():
        model.save_pretrained(output)
    return run.best


@dataclass(frozen=True)
class _Learner:
    """An objective at work.

    Each has an AdamW of its own, although all move the same parameters. AdamW divides by the usual size of a gradient, and
    the gradients of a ranking loss and of a regression differ in size: with shared moments, the larger one would set the pace
    of both. It is also how the published models were trained.
    """

    name: str  # in reports and messages
    loss: Loss
    optimizer: torch.optim.Optimizer
    stream: BatchStream


class _Run:
    """What a run carries from step to step."""

    def __init__(
        self,
        model: SentenceEncoder,
        objectives: Sequence[Objective],
        plan: Plan,
        folder: Path | None,
        evaluator: Evaluator | None,
    ) -> None:
        self.model, self.plan, self.folder, self.evaluator = model, plan, folder, evaluator
        self.schedule = plan.schedule([len(each.batches) for each in objectives])
        names = [each.name for each in objectives]
        if len(set(names)) < len(names):  # then their places tell them apart
            names = [f"{name}-{number}" for number, name in enumerate(names, start=1)]
        self.learners = [
            _Learner(name, each.loss, build_optimizer(model, plan), BatchStream(each.batches))
            for name, each in zip(names, objectives, strict=True)
        ]
        self.optimizers = [learner.optimizer for learner in self.learners]
        self.log = TrainingLog(folder if is_main_process() else None, evaluator)
        named = dict(zip(names, objectives, strict=True))
        self.settings = run_settings(model, named, plan, self.schedule, None if evaluator is None else evaluator.name)
        self.best: float | None = None
        self.first = 0  # the step that this process began with
        check_agreement((self.settings, plan))

    def begin(self, resume: bool) -> int:
        """Take up the last training state, or remove what an earlier run left; returns the number of steps done."""
        state = None
        if resume and self.folder is not None:
            state = load_state(self.folder / TRAINING_STATES, self.model, self.optimizers, self.settings)
        if state is not None:
            self.best = state["best"]
            # What a batch holds depends on a seed and on those before it. So the batches that are done are taken once more,
            # without computing with them: then the next one is right, and hashes show whether the data are still the same.
            for learner in self.learners:
                for _ in range(state["step"]):
                    learner.stream.take()
            if state["batches"] != self.digests():
                raise InputError(f"{self.folder}: the data are not those that this run was begun with; train anew")
        elif resume:
            warnings.warn(f"{self.folder}: no training state to go on from; the run begins anew", stacklevel=3)
        if state is None and self.folder is not None and is_main_process():
            shutil.rmtree(self.folder / TRAINING_STATES, ignore_errors=True)
        self.first = 0 if state is None else state["step"]
        self.log.start(self.first, None if state is None else state["log"])
        return self.first

    def take_step(self, step: int) -> StepReport:
        """One step of every objective in turn; `step` counts from 0."""
        start = time.perf_counter()
        self.model.train()
        torch.manual_seed(seed_of_dropout(self.plan.seed, step))
        rate = self.plan.learning_rate * warmup_linear(step, self.schedule.warmup_steps, self.schedule.total_steps)
        losses, norms, tokens = {}, {}, 0
        for learner in self.learners:
            where = f"step {step + 1}, objective {learner.name}"
            losses[learner.name], norms[learner.name], count = train_step(
                self.model, learner.optimizer, learner.stream.take(), learner.loss, rate, self.plan, where
            )
            tokens += count
        if step == self.first:  # once: processes that draw other batches from the start would average unrelated gradients
            check_agreement(self.digests())
        epoch, seconds = step // self.schedule.steps_per_epoch, time.perf_counter() - start
        report = StepReport(step + 1, self.schedule.total_steps, epoch, rate, losses, norms, tokens, seconds)
        self.log.step(report)
        return report

    def evaluate_if_due(self, report: StepReport) -> StepReport:
        """Measure the model where the plan says so and keep it if it is the best so far; returns the report with the result."""
        step_in_epoch = (report.step - 1) % self.schedule.steps_per_epoch + 1
        at_end = step_in_epoch == self.schedule.steps_per_epoch or report.step == self.schedule.total_steps
        every = self.plan.evaluation_steps
        if self.evaluator is None or not (at_end or (every and step_in_epoch % every == 0)):
            return report
        result, score = None, 0.0
        if is_main_process():
            self.model.eval()
            result = self.evaluator(self.model)
            score = self.evaluator.main_score(result)
            self.log.evaluation(report.epoch, -1 if at_end else step_in_epoch, report.step, result)
            if self.folder is not None and (self.best is None or score > self.best):
                self.model.save_pretrained(self.folder)
        score = gather(score)[0]  # that of the main process
        self.best = score if self.best is None else max(score, self.best)
        return dataclasses.replace(report, evaluation=result)

    def save_state(self, step: int) -> None:
        """Write down all that is needed to go on from here."""
        if self.folder is not None and is_main_process():
            state = {"run": self.settings, "best": self.best, "log": self.log.sizes(), "batches": self.digests()}
            save_state(self.folder / TRAINING_STATES, step, self.model, self.optimizers, state)

    def digests(self) -> list[str]:
        """Hashes of the batches that each objective has taken."""
        return [learner.stream.digest() for learner in self.learners]


@contextlib.contextmanager
def training_mode(model: SentenceEncoder) -> Iterator[None]:
    """Whatever happens inside, leave no dropout and no gradients behind, and the random generators as they were.

    On a CPU all embeddings get sparse gradients: a dense one of the whole vocabulary, for every chunk of a batch, would take an
    eighth of the time.
    """
    embeddings = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    model.zero_grad()
    with torch.random.fork_rng([model.device] if model.device.type == "cuda" else []):
        try:
            for embedding in embeddings:
                embedding.sparse = model.device.type == "cpu"
            yield
        finally:
            for embedding in embeddings:
                embedding.sparse = False
            model.zero_grad()
            model.eval()


def seed_of_dropout(seed: int, step: int) -> int:
    """Every step of every process draws from a seed of its own, so that a resumed run draws what it would have drawn."""
    return int(np.random.SeedSequence((seed, step, process_rank())).generate_state(1)[0])
