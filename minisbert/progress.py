"""The one progress bar of the project. It is drawn on standard error.

    with progress_bar(len(texts), show=None) as bar:  # encoding: the bar is removed at the end
        bar.advance(32)

    with progress_bar(steps, show, unit="step", leave=True) as bar:  # training
        bar.move_to(report.step, after="loss 0.1234 lr 2.0e-05")
        bar.write("train.py: step 100: spearman cosine 84.12")  # a line of its own above the bar

    with progress_bar(None, show, unit="B") as bar:  # a download: bytes are shown as kB, MB, ...
        bar.move_to(have, total=length, before="KorSTS/sts-train.tsv")

The caller need not ask whether a bar is shown: without one, `advance` and `move_to` do nothing, and `write` prints the line.
"""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any


class ProgressBar:
    """What the caller tells the bar."""

    def __init__(self, bar: Any = None) -> None:
        self._bar = bar  # of tqdm; None = nothing is shown

    def advance(self, count: int) -> None:
        """Say that `count` more units are done."""
        if self._bar is not None:
            self._bar.update(count)

    def move_to(self, done: int, total: int | None = None, before: str = "", after: str = "") -> None:
        """Say that `done` units are done.

        Args:
            done: since the beginning. It may be less than before, when the next file begins.
            total: how many there will be, if that is known only now; None or 0 = no news.
            before: text in front of the bar.
            after: text behind the bar.
        """
        if self._bar is not None:
            self._bar.total = total or self._bar.total
            self._bar.set_description(before, refresh=False)
            self._bar.set_postfix_str(after, refresh=False)
            self._bar.update(done - self._bar.n)

    def write(self, line: str) -> None:
        """Print a line on standard error, above the bar."""
        if self._bar is not None:
            self._bar.write(line, file=sys.stderr)
        else:
            sys.stderr.write(line + "\n")


@contextlib.contextmanager
def progress_bar(
    total: int | None, show: bool | None, unit: str = "text", leave: bool = False
) -> Iterator[ProgressBar]:
    """Show a progress bar while the block runs.

    Args:
        total: how many units there are; None = not known yet.
        show: None = if standard error is a terminal.
        unit: what is counted; "B" = bytes.
        leave: whether the last state of the bar stays on the screen.
    """
    if show is None:
        show = sys.stderr is not None and sys.stderr.isatty()
    if not show:
        yield ProgressBar()
        return
    from huggingface_hub.utils import tqdm  # imported here because it takes longer than to encode a few texts

    with tqdm(total=total, unit=unit, unit_scale=unit == "B", leave=leave) as bar:
        yield ProgressBar(bar)
