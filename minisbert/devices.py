"""What depends on the device: whether it works, how much it takes at a time, and how it says that it is full."""

import functools
import os
import warnings
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from minisbert.errors import InputError

Rows = npt.NDArray[np.int64]


def usable_device(device: str | torch.device | None) -> torch.device:
    """The device, None = "cuda" if there is one, else "cpu"; an InputError if it cannot keep one number."""
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, ImportError) as error:  # torch has many ways to say it
        reason = str(error).partition("\n")[0]
        raise InputError(f"device {str(device)!r} cannot be used: {reason:.100}; try another, such as cpu") from None
    return torch.device(device)


def batch_budget(device: torch.device, dtype: torch.dtype = torch.float32) -> tuple[int, int]:
    """What suits the device: `max_tokens` and `batch_cost` for `batching.plan_batches`.

    On a CPU, measured with tests/benchmarks: products of fewer rows are slower, and larger batches leave its caches, which
    counts for more beside the fast products of int8. There batches cost nothing, so that nothing is padded: models/int8.py says
    why. For GPUs an estimate.
    """
    if dtype == torch.int8:
        return 512, 0
    return (2048, 128) if device.type == "cpu" else (16384, 1024)


def is_out_of_memory(error: Exception) -> bool:
    """Whether this error says that memory is short."""
    # The allocator of the CPU raises a plain RuntimeError.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)


def halved_when_full(compute: Callable[[Rows], Tensor], batches: Sequence[Rows]) -> Iterator[tuple[Rows, Tensor]]:
    """Compute batch by batch and yield the rows of each, (B,), with what comes out.

    A batch that does not fit into the memory is halved until it does. If one row alone does not, an InputError names it.
    """
    todo = list(reversed(batches))  # the next one is at the end
    halved = False
    finished: tuple[Rows, Tensor] | None = None
    while todo:
        rows = todo.pop()
        try:
            outputs = compute(rows)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if len(rows) == 1:
                raise InputError("out of memory for this text alone; lower the maximal length", row=int(rows[0])) from None
            if not halved:
                warnings.warn("out of memory: batches are halved until they fit", stacklevel=4)
            halved = True
            todo += np.array_split(rows, 2)
            continue
        # A GPU computes this batch while the one before is copied out by the caller.
        if finished is not None:
            yield finished
        finished = rows, outputs
    if finished is not None:
        yield finished


@functools.cache
def keep_working_after_fork() -> None:
    """Let processes made by fork compute with one thread.

    They are copies of this one in which torch's other threads do not live on: the first large product would wait for them
    forever. (With the start method "spawn" there is no such limit.)
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=functools.partial(torch.set_num_threads, 1))
