"""Encode a stream of texts block by block, count what was encoded, and share the work of processes started by torchrun.

`SentenceEncoder.encode` sorts all the texts that it gets by length. A stream may hold more than fits into memory, so it is
cut into blocks that are encoded one after the other.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch.distributed as distributed

from minisbert import devices
from minisbert.distributed import process_count, share_of_rows
from minisbert.errors import MinisbertError
from minisbert.sentence_encoder import EncodeReport, SentenceEncoder

# A block has at most so many texts, of about so many characters. A resumed run relies on both numbers.
ROWS_AT_ONCE = 16384
CHARACTERS_AT_ONCE = 1 << 26


def blocks(texts: Iterator[str]) -> Iterator[list[str]]:
    """Cut a stream of texts into blocks that fit into memory."""
    block: list[str] = []
    characters = 0
    for text in texts:
        block.append(text)
        characters += len(text)
        if len(block) == ROWS_AT_ONCE or characters >= CHARACTERS_AT_ONCE:
            yield block
            block, characters = [], 0
    if block:
        yield block


def is_full(block: Sequence[str]) -> bool:
    """Whether a block was cut because it was full; one that is not is the last of its stream."""
    return len(block) == ROWS_AT_ONCE or sum(map(len, block)) >= CHARACTERS_AT_ONCE


class BlockEncoder:
    """A model with its options, arguments of `SentenceEncoder.encode`, which counts what it encodes."""

    def __init__(self, model: SentenceEncoder, options: dict[str, Any]) -> None:
        self.model = model
        self.options = options
        self.first_row = 0  # number of the first text, for messages: an earlier run has encoded the rows before it
        self.reports: list[EncodeReport] = []  # of every block and every process
        self.seconds = 0.0

    def __call__(self, texts: Sequence[str], prompt_names: Sequence[str] = ()) -> npt.NDArray[np.float32]:
        """Encode a block, of which each process computes its share.

        Args:
            texts: N texts, the same in all processes.
            prompt_names: if the options ask for no prompt, the first of these that the model has is used.

        Returns:
            float32 (N, D), in all processes.

        Raises:
            MinisbertError: see `SentenceEncoder.encode`; the row that it names is counted from the start of the stream.
        """
        options = self.options
        if options["prompt"] is None and options["prompt_name"] is None:
            known = (name for name in prompt_names if name in self.model.folder.prompts)
            options = {**options, "prompt_name": next(known, None)}
        share = share_of_rows(len(texts))
        reports: list[EncodeReport] = []
        try:
            vectors: npt.NDArray[np.float32] = self.model.encode(texts[share], **options, on_report=reports.append)
        except MinisbertError as error:
            if error.row is not None:
                error.row += self.first_row + self.count("rows") + share.start  # the model counts from its first text
            raise
        if process_count() > 1:
            parts: list[Any] = [None] * process_count()
            distributed.all_gather_object(parts, (vectors, reports[0]))
            vectors, reports = np.concatenate([part[0] for part in parts]), [part[1] for part in parts]
        self.reports += reports
        self.seconds += max(report.seconds for report in reports)  # the processes work at the same time
        return vectors

    def count(self, what: str) -> int:
        """How many "rows", "tokens", ... were encoded; the names are those of `EncodeReport`."""
        return sum(getattr(report, what) for report in self.reports)

    def identity(self) -> dict[str, Any]:
        """Everything that the vectors depend on; a resumed run must agree in all of it."""
        return {
            "weights": self.model.fingerprint(),
            "folder": hashlib.sha256(repr(self.model.folder).encode()).hexdigest(),
            "max_length": self.model.max_seq_length,
            "device": self.model.device.type,
            "dtype": str(self.model.dtype),
            "at_once": [ROWS_AT_ONCE, CHARACTERS_AT_ONCE, *devices.batch_budget(self.model.device)],
            **{name: value for name, value in self.options.items() if name != "show_progress_bar"},
        }
