"""Several processes, started by torchrun, that share one piece of work. With one process, all of this does nothing.

In training each process takes its share of every batch, and the gradients are averaged before they are clipped.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Any, TypeVar, cast

import torch
import torch.distributed as distributed
from torch import Tensor, nn

from minisbert.devices import usable_device
from minisbert.errors import InputError, ProcessError

T = TypeVar("T")


@contextlib.contextmanager
def join_processes(device: str | None, backend: str | None = None) -> Iterator[str | None]:
    """Join the other processes if torchrun started several, and yield the device of this one.

    With `device` None or "cuda", each process has a GPU, if there are some. Without torchrun `device` is not tried out.
    `backend` carries tensors; None = "nccl" between GPUs, else "gloo". If another process ends before its work is done,
    this one gets a `ProcessError`.
    """
    if "LOCAL_RANK" not in os.environ:
        yield device
        return
    if device == "cuda" or (device is None and torch.cuda.is_available()):
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    device = str(usable_device(device or "cpu"))
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
    distributed.init_process_group(backend or ("nccl" if device.startswith("cuda") else "gloo"))
    try:
        yield device
    except RuntimeError as error:  # which gloo raises without a class of its own
        if isinstance(error, distributed.DistError) or "gloo" in str(error):
            raise ProcessError("another process of this run has ended; see what it said") from None
        raise
    finally:
        distributed.destroy_process_group()


def process_rank() -> int:
    """The number of this process, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def process_count() -> int:
    """How many processes share the work."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def is_main_process() -> bool:
    """Whether this process is the one that writes."""
    return process_rank() == 0


def share_of_rows(rows: int) -> slice:
    """Which of so many rows belong to this process: neighbours, and for all processes the same number if that is possible."""
    rank, processes = process_rank(), process_count()
    return slice(rank * rows // processes, (rank + 1) * rows // processes)


def gather(value: T) -> list[T]:
    """The values of all processes, in the order of their numbers."""
    values = [value] * process_count()
    if distributed.is_initialized():
        distributed.all_gather_object(values, value)
    return values


def check_agreement(value: object) -> None:
    """Raise an `InputError` in all processes if they have not all the same value."""
    if any(each != value for each in gather(value)):
        raise InputError("the processes of this run have different data or settings; give all of them the same")


def average_over_processes(model: nn.Module, loss: Tensor, tokens: int) -> tuple[float, int]:
    """Average the gradients of the model, in place, over the processes; returns the average loss and the sum of the tokens."""
    if not distributed.is_initialized():
        return loss.item(), tokens
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    totals = torch.tensor([loss.item() / process_count(), tokens], dtype=torch.float64, device=loss.device)
    for tensor in (*gradients, totals):
        distributed.all_reduce(tensor)
    torch._foreach_div_(gradients, process_count())
    return totals[0].item(), int(totals[1])


def rows_of_all_processes(rows: Tensor) -> Tensor:
    """The rows (B, D) of all processes, one below the other: (B · processes, D), with gradients.

    A row's gradient is the sum of those that all processes have. `average_over_processes` divides by their number later: the
    result is that of the mean over all rows.
    """
    gathered: Tensor = cast(Any, _AllProcesses).apply(rows)
    return gathered


class _AllProcesses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        """From (B, D) to (B · processes, D)."""
        gathered = [torch.empty_like(rows) for _ in range(process_count())]
        distributed.all_gather(gathered, rows.contiguous())
        return torch.cat(gathered)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """From (B · processes, D) to (B, D)."""
        total = gradient.clone()
        distributed.all_reduce(total)
        return total.chunk(process_count())[process_rank()]
