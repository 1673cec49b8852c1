"""What depends on the device: whether it works, how much it takes at a time, and how it says that it is full."""

import torch

from minisbert.errors import InputError


def usable_device(device: str | torch.device | None) -> torch.device:
    """The device to compute on, tried out with one number.

    Args:
        device: None = "cuda" if there is one, else "cpu".

    Raises:
        InputError: it does not work; torch itself raises many kinds of error for that.
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"device {str(device)!r} cannot be used: {reason:.100}; try cpu or cuda") from None
    return torch.device(device)


def batch_budget(device: torch.device) -> tuple[int, int]:
    """What suits the device: `max_tokens` and `batch_cost` for `batching.plan_batches`.

    On a CPU, measured with tests/benchmarks: products of fewer rows are slower, and larger batches leave its caches. For GPUs
    an estimate.
    """
    return (2048, 128) if device.type == "cpu" else (16384, 1024)


def is_out_of_memory(error: Exception) -> bool:
    """Whether this error says that memory is short."""
    # The allocator of the CPU raises a plain RuntimeError.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)
