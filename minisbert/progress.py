"""The one progress bar of the project, on standard error.

    with progress_bar(steps, show=None, unit="step") as bar:
        bar.move_to(step, after="loss 0.1234")
        bar.write("train.py: step 100: spearman cosine 84.12")  # a line of its own

The caller need not ask whether a bar is shown: without one, only `write` does something.
"""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any


class ProgressBar:
    """What the caller tells the bar, which is one of tqdm, or None if nothing is shown."""

    def __init__(self, bar: Any = None) -> None:
        self._bar = bar

    def advance(self, count: int) -> None:
        """Say that `count` more units are done."""
        if self._bar is not None:
            self._bar.update(count)

    def move_to(self, done: int, total: int | None = None, before: str = "", after: str = "") -> None:
        """Say that `done` of `total` units are done (None or 0 = no news), with texts before and after the bar."""
        if self._bar is not None:
            self._bar.total = total or self._bar.total
            self._bar.set_description(before, refresh=False)
            self._bar.set_postfix_str(after, refresh=False)
            self._bar.update(done - self._bar.n)

    def write(self, line: str) -> None:
        """Print a line on standard error, above the bar."""
        if self._bar is None:
            sys.stderr.write(line + "\n")
        else:
            self._bar.write(line, file=sys.stderr)


@contextlib.contextmanager
def progress_bar(total: int | None, show: bool | None, unit: str = "text", leave: bool = False) -> Iterator[ProgressBar]:
    """Show a progress bar while the block runs; with `leave`, it stays on the screen at the end.

    `total` None = not known yet; `show` None = if standard error is a terminal; `unit` "B" = bytes, shown as kB, MB, ...
    """
    if show or (show is None and sys.stderr is not None and sys.stderr.isatty()):
        from huggingface_hub.utils import tqdm  # imported here because it takes longer than to encode a few texts

        with tqdm(total=total, unit=unit, unit_scale=unit == "B", leave=leave) as bar:
            yield ProgressBar(bar)
    else:
        yield ProgressBar()
