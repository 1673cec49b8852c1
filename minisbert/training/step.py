"""One training step, the first page of training to read: forward, backward, clip, move the parameters.

`loop.fit` calls `train_step` for one objective after the other, thousands of times. The rest of training prepares a batch,
writes down what it returns, or saves the result. Axis letters: see layers.py.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recompute

from minisbert.devices import batch_budget
from minisbert.distributed import average_over_processes
from minisbert.errors import NonFiniteError
from minisbert.sentence_encoder import SentenceEncoder
from minisbert.text.batching import plan_batches
from minisbert.training.examples import Batch, share_of_batch
from minisbert.training.losses import Loss
from minisbert.training.plan import Plan


def train_step(
    model: SentenceEncoder,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    loss: Loss,
    rate: float,
    plan: Plan,
    where: str,
) -> tuple[float, float, int]:
    """Move the parameters of `model` once, so that the loss of this batch becomes smaller.

    Args:
        model: in training mode.
        optimizer: of this objective.
        batch: this process takes its share of the rows.
        loss: of this objective.
        rate: the learning rate of this step, see `optim.warmup_linear`.
        plan: for clipping, autocast and recomputing.
        where: the step and the objective, for the message of an error.

    Returns:
        The loss, the length of the gradient before clipping, and the number of tokens; those of all processes together.

    Raises:
        NonFiniteError: the loss or the gradient is NaN or infinite; no parameter has been moved by it.
    """
    batch = share_of_batch(batch)
    reduced = plan.autocast != "float32"
    with torch.autocast(model.device.type, getattr(torch, plan.autocast) if reduced else None, enabled=reduced):
        embeddings, tokens = embed_columns(model, batch.texts, plan.recompute_activations)  # (B, D) for each column
    # The loss stays in float32: bfloat16 rounds a cosine near 1 by up to 0.002, and a scale of 20 makes that 0.04.
    labels = None if batch.labels is None else torch.tensor(batch.labels, device=model.device)  # (B,)

    value = loss(embeddings, labels)  # forward: a scalar
    value.backward()  # backward: adds to the gradient of every parameter
    make_dense(model)  # for the clipping and AdamW
    mean, tokens = average_over_processes(model, value.detach(), tokens)  # and the gradients

    # One odd batch can have a gradient a hundred times as long as the others. Clipping shortens it and keeps its direction, so
    # that it cannot undo what hundreds of steps have learnt. What is returned is the length before.
    norm = float(nn.utils.clip_grad_norm_(model.parameters(), plan.max_grad_norm))
    if not (math.isfinite(mean) and math.isfinite(norm)):
        advice = "Lower the learning rate, or look at the data of this batch"
        raise NonFiniteError(f"{where}: loss {mean}, gradient norm {norm}; this update was not made. {advice}")
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad()
    return mean, norm, tokens


def embed_columns(
    model: SentenceEncoder, columns: Sequence[Sequence[str]], recompute_activations: bool = False
) -> tuple[list[Tensor], int]:
    """Sentence embeddings, with gradients, of all columns of a batch.

    The texts of all columns are sorted by length together and cut into chunks, each padded to its own longest text: padded
    column by column, a random batch is more than half padding. The gradient is exactly that of the whole batch, because texts
    do not meet before the loss: attention looks inside a text, LayerNorm inside a token. Only dropout makes a difference: which
    numbers it sets to zero depends on the place of a text in its chunk. Its distribution is the same.

    `recompute_activations` keeps nothing of the forward pass and does it again in the backward pass: less memory, more time.

    Returns:
        A tensor (B, D) for each column, float32, or float64 in a float64 model, and the number of tokens.
    """
    texts = [text for column in columns for text in column]
    tokenized = model.tokenizer(texts)
    device = model.device
    max_tokens, batch_cost = batch_budget(device)
    batches = plan_batches(tokenized.lengths, max_tokens, batch_cost)
    chunks = []
    for rows in batches:
        input_ids, mask = model.tokenizer.pad(tokenized, rows)
        inputs = (input_ids.to(device), None if mask is None else mask.to(device))
        chunks.append(recompute(model, *inputs, use_reentrant=False) if recompute_activations else model(*inputs))
    # The argsort of an order is its inverse: text i stands at place[i] of the chunks.
    place = torch.from_numpy(np.argsort(np.concatenate(batches))).to(device)
    embeddings = torch.cat(chunks)[place]  # (sum of B, D)
    return list(embeddings.split([len(column) for column in columns])), len(tokenized.ids)


def make_dense(model: nn.Module) -> None:
    """Turn sparse gradients, those of embeddings on a CPU (see `loop.training_mode`), into ordinary ones."""
    for parameter in model.parameters():
        if parameter.grad is not None and parameter.grad.is_sparse:
            parameter.grad = parameter.grad.to_dense()
