"""The training loop: several objectives in turn over one model, step for step as sentence-transformers 2.x trained.

That order of things (its `fit`, kept in 6.2.0 as `old_fit`, against which this was checked) is what the published Korean
models came from, and newer trainers do not repeat it: every objective has an AdamW and a schedule of its own over the shared
parameters, and in each step every objective in turn takes a batch, goes forward and back, clips, and moves the parameters.

Two things are done differently, with the same result: the texts of a batch are sorted by length and cut into chunks with
little padding (batching.py), and AdamW is one fused kernel. Under torchrun, every process takes its share of each batch.
Axis letters: see layers.py.
"""

import contextlib
import hashlib
import itertools
import math
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recompute

from minisbert.devices import batch_budget
from minisbert.distributed import (
    any_process,
    average_over_processes,
    check_agreement,
    is_main_process,
    process_count,
    process_rank,
    said_by_main_process,
    share_of_batch,
)
from minisbert.errors import InputError, NonFiniteError
from minisbert.sentence_encoder import SentenceEncoder
from minisbert.text.batching import plan_batches
from minisbert.training.checkpoints import load_state, save_state
from minisbert.training.examples import Batch
from minisbert.training.log import StepReport, TrainingLog
from minisbert.training.losses import Loss
from minisbert.training.optim import build_optimizer, warmup_linear

CHECKPOINTS = "checkpoints"


class Batches(Protocol):
    """Something that can be iterated again and again, such as `data.ShuffledBatches`."""

    def __len__(self) -> int:
        """The number of batches of one iteration."""

    def __iter__(self) -> Iterator[Batch]:
        """The batches; the next iteration may bring others, but the same in every run."""


class Evaluator(Protocol):
    """Measures a model, such as `evaluation.EmbeddingSimilarityEvaluator`."""

    name: str

    def __call__(self, model: SentenceEncoder) -> dict[str, float]:
        """Numbers under names such as "dev_spearman_cosine"; the largest "spearman" decides which model is best."""


@dataclass(frozen=True)
class Objective:
    """A loss and the batches it is computed on."""

    batches: Batches
    loss: Loss
    name: str = "train"


class Stopped(Exception):
    """`should_stop` said so; a checkpoint of this step has been written if there is an output folder."""


def fit(
    model: SentenceEncoder,
    objectives: Sequence[Objective],
    epochs: int,
    learning_rate: float = 2e-5,
    warmup_steps: int = 0,
    weight_decay: float = 0.01,
    max_grad_norm: float = 1.0,
    steps_per_epoch: int | None = None,
    evaluator: Evaluator | None = None,
    evaluation_steps: int = 0,
    output: str | os.PathLike[str] | None = None,
    checkpoint_steps: int = 0,
    resume: bool = False,
    seed: int = 0,
    max_steps: int | None = None,
    optimizer: str = "adamw",
    eps: float = 1e-8,
    autocast: torch.dtype | None = None,
    recompute_activations: bool = False,
    on_step: Callable[[StepReport], None] | None = None,
    on_evaluation: Callable[[int, dict[str, float]], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> float | None:
    """Train `model` in place.

    Args:
        model: on its device, in float32 (or float64).
        objectives: taken in turn in each step; one whose batches run out starts over with them.
        epochs: each of `steps_per_epoch` steps.
        learning_rate: the largest, reached after the warm-up.
        warmup_steps: see `optim.warmup_linear`.
        weight_decay: see `optim.parameter_groups`.
        max_grad_norm: longer gradients are shortened to this Euclidean length.
        steps_per_epoch: None = as many as the objective with the fewest batches has.
        evaluator: called every `evaluation_steps` steps of an epoch and at its end; the best model is kept in `output`.
        evaluation_steps: 0 = at the end of epochs only.
        output: folder for the model (the best one, or the last one without an evaluator), metrics and checkpoints.
        checkpoint_steps: write a checkpoint every so many steps; 0 = never.
        resume: go on from the last checkpoint in `output`, if there is one; the result is the same to the bit on a CPU.
            Without, checkpoints and metrics of an earlier run in `output` are removed.
        seed: of dropout, 0 or larger.
        max_steps: stop after so many steps; the schedule ends there too.
        optimizer: see `optim.build_optimizer`.
        eps: epsilon of AdamW.
        autocast: compute matrix products in this dtype (bfloat16); None = in that of the model.
        recompute_activations: keep no activations but compute them again for the gradient: less memory, more time.
        on_step: called after each step, in every process.
        on_evaluation: called in the main process with the number of steps done and the numbers of the evaluator.
        should_stop: asked after each step; with several processes, one that says so stops all.

    Returns:
        The best score of the evaluator: the largest of its Spearman correlations; None without an evaluator. `model` has
        the last weights, `output` the best ones.

    Raises:
        NonFiniteError: a loss or a gradient is NaN or infinite; no parameter has been moved by it.
        InputError: the arguments contradict each other, or those of the run that is to be resumed; or the evaluator gives
            no Spearman correlation.
        ModelError: all checkpoints of the run that is to be resumed are damaged.
        OSError: `output` cannot be written to.
        Stopped: `should_stop` returned True.
    """
    if resume and output is None:
        raise InputError("nothing to resume: no output folder is given")
    fewest_batches = min((len(objective.batches) for objective in objectives), default=0)
    if steps_per_epoch is None:
        steps_per_epoch = fewest_batches
    if min(fewest_batches, steps_per_epoch, epochs) < 1:
        raise InputError("nothing to train on: fewer examples than one batch, or no epochs")
    total_steps = min(steps_per_epoch * epochs, max_steps or steps_per_epoch * epochs)
    optimizers = [build_optimizer(model, optimizer, learning_rate, eps, weight_decay) for _ in objectives]
    streams = [_Stream(objective.batches) for objective in objectives]
    names = [each.name for each in objectives]
    if len(set(names)) < len(names):  # then their places tell them apart
        names = [f"{name}-{number}" for number, name in enumerate(names, start=1)]
    output = None if output is None else Path(output)
    log = TrainingLog(output if is_main_process() else None, evaluator.name if evaluator is not None else "")
    config = vars(model.encoder.config)
    settings = {  # what must be the same for a run to be resumed
        "encoder": type(model.encoder).__name__,
        **{name: sorted(value) if isinstance(value, frozenset) else value for name, value in config.items()},
        "pooling": model.pooling.mode,
        "max_seq_length": model.max_seq_length,
        "tokenizer": hashlib.sha256(model.tokenizer.backend.to_str().encode()).hexdigest(),
        "objectives": [
            f"{name}: {len(each.batches)} batches, {each.loss if is_dataclass(each.loss) else type(each.loss).__name__}"
            for name, each in zip(names, objectives, strict=True)
        ],
        "steps": total_steps,
        "steps_per_epoch": steps_per_epoch,
        "learning_rate": learning_rate,
        "warmup_steps": warmup_steps,
        "weight_decay": weight_decay,
        "max_grad_norm": str(max_grad_norm),  # JSON has no infinity
        "seed": seed,
        "optimizer": f"{optimizer}, eps {eps}",
        "autocast": str(autocast),
        "evaluator": evaluator.name if evaluator is not None else None,
        "processes": process_count(),
    }
    check_agreement((settings, evaluation_steps))
    best: float | None = None
    first = 0

    with _training(model), contextlib.closing(log):
        state = load_state(output / CHECKPOINTS, model, optimizers, settings) if resume and output is not None else None
        if state is not None:
            first, best = state["step"], state["best"]
            for stream in streams:
                for _ in range(first):  # the batches that are done
                    stream.take()
            if state["batches"] != [stream.digest() for stream in streams]:
                raise InputError(f"{output}: the data are not those that this run was begun with; train anew")
        elif resume:
            warnings.warn(f"{output}: no checkpoint to go on from; the run begins anew", stacklevel=2)
        if state is None and output is not None and is_main_process():
            shutil.rmtree(output / CHECKPOINTS, ignore_errors=True)
        log.start(first, None if state is None else state["log"])
        for step in range(first, total_steps):
            start = time.perf_counter()
            model.train()
            torch.manual_seed(_seed_of_dropout(seed, step))
            rate = learning_rate * warmup_linear(step, warmup_steps, total_steps)
            losses, norms, tokens = {}, {}, 0
            for name, objective, adamw, stream in zip(names, objectives, optimizers, streams, strict=True):
                for group in adamw.param_groups:
                    group["lr"] = rate
                batch = share_of_batch(stream.take())
                loss, count = _accumulate_gradients(model, batch, objective.loss, autocast, recompute_activations)
                norm = float(nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm))
                if not (math.isfinite(loss) and math.isfinite(norm)):
                    raise NonFiniteError(
                        f"step {step + 1}, objective {name}: loss {loss}, gradient norm {norm}; this update was not made. "
                        "Lower the learning rate, or look at the data of this batch"
                    )
                adamw.step()
                adamw.zero_grad()
                losses[name], norms[name] = loss, norm
                tokens += count
            if step == first:
                check_agreement([stream.digest() for stream in streams])
            done = step + 1
            epoch, step_in_epoch = step // steps_per_epoch, step % steps_per_epoch + 1
            report = StepReport(done, total_steps, epoch, rate, losses, norms, tokens, time.perf_counter() - start)
            log.step(report)
            if on_step is not None:
                on_step(report)
            at_end = step_in_epoch == steps_per_epoch or done == total_steps
            if evaluator is not None and (at_end or (evaluation_steps and step_in_epoch % evaluation_steps == 0)):
                best = _evaluate(
                    model, evaluator, best, output, log, epoch, -1 if at_end else step_in_epoch, done, on_evaluation
                )
            stopping = should_stop is not None and any_process(should_stop(), model.device)
            if output is not None and (stopping or (checkpoint_steps and done % checkpoint_steps == 0)):
                if is_main_process():
                    batches = [stream.digest() for stream in streams]
                    progress = {"run": settings, "best": best, "log": log.sizes(), "batches": batches}
                    save_state(output / CHECKPOINTS, done, model, optimizers, progress)
            if stopping:
                raise Stopped(done)
    if evaluator is None and output is not None and is_main_process():
        model.save_pretrained(output)
    return best


def embed_columns(
    model: SentenceEncoder, columns: Sequence[Sequence[str]], recompute_activations: bool = False
) -> tuple[list[Tensor], int]:
    """Sentence embeddings, with gradients, of all columns of a batch.

    The texts of all columns are sorted by length together and cut into chunks, each padded to its own longest text: padded
    column by column, a random batch is more than half padding.

    Returns:
        A tensor (B, D) for each column, float32, or float64 in a float64 model, and the number of tokens.
    """
    texts = [text for column in columns for text in column]
    tokenized = model.tokenizer(texts)
    device = model.device
    plan = plan_batches(tokenized.lengths, *batch_budget(device))
    chunks = []
    for rows in plan:
        input_ids, mask = model.tokenizer.pad(tokenized, rows)
        inputs = (input_ids.to(device), None if mask is None else mask.to(device))
        chunks.append(recompute(model, *inputs, use_reentrant=False) if recompute_activations else model(*inputs))
    place = torch.from_numpy(np.argsort(np.concatenate(plan))).to(device)  # where each text is in the chunks
    embeddings = torch.cat(chunks)[place]  # (sum of B, D)
    return list(embeddings.split([len(column) for column in columns])), len(tokenized.ids)


def _accumulate_gradients(
    model: SentenceEncoder, batch: Batch, loss: Loss, autocast: torch.dtype | None, recompute_activations: bool
) -> tuple[float, int]:
    """Forward and back; returns the loss and the number of tokens of the whole batch."""
    with torch.autocast(model.device.type, autocast, enabled=autocast is not None):
        embeddings, tokens = embed_columns(model, batch.texts, recompute_activations)
    labels = None if batch.labels is None else torch.tensor(batch.labels, device=model.device)
    value = loss(embeddings, labels)
    value.backward()
    for parameter in model.parameters():
        if parameter.grad is not None and parameter.grad.is_sparse:
            parameter.grad = parameter.grad.to_dense()
    return average_over_processes(model, value.detach(), tokens)


class _Stream:
    """The batches of an objective, one iteration after the other, and a digest of all that were taken."""

    def __init__(self, batches: Batches) -> None:
        self._batches = itertools.chain.from_iterable(itertools.repeat(batches))
        self._taken = hashlib.sha256()

    def take(self) -> Batch:
        batch = next(self._batches)
        self._taken.update(repr(batch).encode())
        return batch

    def digest(self) -> str:
        return self._taken.hexdigest()


@contextlib.contextmanager
def _training(model: SentenceEncoder) -> Iterator[None]:
    """Whatever happens inside, leave no dropout and no gradients behind, and the model's random generators as they were.

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


def _seed_of_dropout(seed: int, step: int) -> int:
    """Every step of every process draws from a seed of its own, so that a resumed run draws what it would have drawn."""
    return int(np.random.SeedSequence((seed, step, process_rank())).generate_state(1)[0])


def _evaluate(
    model: SentenceEncoder,
    evaluator: Evaluator,
    best: float | None,
    output: Path | None,
    log: TrainingLog,
    epoch: int,
    step_in_epoch: int,
    done: int,
    on_evaluation: Callable[[int, dict[str, float]], None] | None,
) -> float:
    """Measure the model, keep it if it is the best so far, and return the best score."""
    score = 0.0
    if is_main_process():
        model.eval()
        result = evaluator(model)
        score = largest_spearman(result)
        log.evaluation(epoch, step_in_epoch, done, result)
        if on_evaluation is not None:
            on_evaluation(done, result)
        if output is not None and (best is None or score > best):
            model.save_pretrained(output)
    score = said_by_main_process(score, model.device)
    return score if best is None else max(score, best)


def largest_spearman(result: dict[str, float]) -> float:
    """The score that picks the best model: the largest Spearman correlation, as sentence-transformers did up to 3.2.

    A model that gives all texts the same vector has none (NaN), which counts as -1, the worst.

    Raises:
        InputError: the evaluator gives none at all.
    """
    correlations = [value for name, value in result.items() if "spearman" in name.split("_")[-2:]]
    if not correlations:
        raise InputError(f"the evaluator gives no Spearman correlation to pick the best model by: {', '.join(result)}")
    return max((value for value in correlations if not math.isnan(value)), default=-1.0)
