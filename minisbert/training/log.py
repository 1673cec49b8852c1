"""What a training run writes down as it goes: metrics, the evaluator's table, and events for tensorboard if it is there."""

import contextlib
import csv
import json
import math
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minisbert.training.evaluators import Evaluator

METRICS = "metrics.jsonl"
EVALUATIONS = Path("eval")
EVENTS = "tensorboard"


@dataclass(frozen=True)
class StepReport:
    """What happened in one step of all objectives."""

    step: int  # steps done, 1 to `total_steps`
    total_steps: int
    epoch: int  # from 0
    learning_rate: float
    losses: dict[str, float]  # by objective
    gradient_norms: dict[str, float]  # by objective, before clipping
    tokens: int
    seconds: float
    evaluation: dict[str, float] | None = None  # what the evaluator said after this step, in the main process


class TrainingLog:
    """Appends to the files; without a folder, to nothing.

    Lines are written through at once, so that an interrupted run leaves whole lines; a resumed run cuts off those that
    came after its training state and writes the same ones again, except for the times.
    """

    def __init__(self, folder: Path | None, evaluator: "Evaluator | None" = None) -> None:
        self._folder = folder
        self._columns = {} if evaluator is None else evaluator.columns
        words = [] if evaluator is None else [evaluator.table, evaluator.name]
        self._files = (Path(METRICS), EVALUATIONS / "_".join([*filter(None, words), "results.csv"]))
        self._events: Any = None

    def start(self, steps: int, sizes: list[int] | None) -> None:
        """Begin anew, or go on after so many steps and the given numbers of bytes of the two files of text."""
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            if sizes is None:
                shutil.rmtree(self._folder / EVENTS, ignore_errors=True)
                for table in (self._folder / EVALUATIONS).glob("*_results.csv"):
                    table.unlink()
            (self._folder / METRICS).touch()  # says that a run was begun here
            with contextlib.suppress(ImportError):
                from torch.utils.tensorboard import SummaryWriter

                self._events = SummaryWriter(str(self._folder / EVENTS), purge_step=steps + 1)
            for file, size, now in zip(self._files, sizes or [0, 0], self.sizes(), strict=True):
                if size < now:
                    os.truncate(self._folder / file, size)

    def sizes(self) -> list[int]:
        """How long the two files are, in bytes; 0 where there is none."""
        paths = [self._folder / file for file in self._files] if self._folder is not None else []
        return [path.stat().st_size if path.exists() else 0 for path in paths]

    def step(self, report: StepReport) -> None:
        """Note a step."""
        entry = asdict(report)
        del entry["evaluation"]  # has a line of its own
        norms = {f"gradient norm/{name}": norm for name, norm in report.gradient_norms.items()}
        losses = {f"loss/{name}": loss for name, loss in report.losses.items()}
        self._append(entry, {**losses, **norms, "learning rate": report.learning_rate})

    def evaluation(self, epoch: int, step_in_epoch: int, step: int, result: dict[str, float]) -> None:
        """Note an evaluation; `step_in_epoch` is -1 at the end of an epoch, as in sentence-transformers."""
        # JSON has no NaN, which is the correlation with a constant.
        numbers = {name: None if math.isnan(value) else value for name, value in result.items()}
        events = {f"evaluation/{name}": value for name, value in result.items()}
        self._append({"step": step, "evaluation": numbers}, events)
        if self._folder is not None:
            path = self._folder / self._files[1]
            path.parent.mkdir(exist_ok=True)
            with path.open("a", encoding="utf-8", newline="") as file:
                writer = csv.writer(file)
                if path.stat().st_size == 0:
                    writer.writerow(["epoch", "steps", *self._columns])
                writer.writerow([epoch, step_in_epoch, *(result[key] for key in self._columns.values())])

    def close(self) -> None:
        """Write out what the event file has not yet."""
        if self._events is not None:
            self._events.close()

    def _append(self, entry: dict[str, Any], events: dict[str, float]) -> None:
        if self._folder is not None:
            with (self._folder / METRICS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        if self._events is not None:
            for name, value in events.items():
                self._events.add_scalar(name, value, entry["step"])
