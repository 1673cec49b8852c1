"""The reference side of training: what sentence-transformers' `old_fit` does with the same batches."""

from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import CosineSimilarityLoss, MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.readers import InputExample

from tests.training.training_case import (
    EPOCHS,
    LEARNING_RATE,
    MAX_GRAD_NORM,
    WARMUP_STEPS,
    WEIGHT_DECAY,
    Fixed,
    fixed_batches,
)


class Loader:
    """A stand-in for a DataLoader: fixed batches through the collate function that `old_fit` sets."""

    def __init__(self, batches: Fixed) -> None:
        self.batches = batches
        self.collate_fn = None
        self.batch_size = len(batches.iterations[0][0].texts[0])
        self.dataset = []
        self.sampler = self.batch_sampler = None

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        for batch in self.batches:
            labels = batch.labels or [0.0] * len(batch.texts[0])
            rows = zip(*batch.texts, strict=True)
            yield self.collate_fn([InputExample(texts=list(row), label=label) for row, label in zip(rows, labels, strict=True)])


def reference_run(folder: Path, dtype: torch.dtype, monkeypatch) -> tuple[dict[str, list[float]], dict[str, torch.Tensor]]:
    """Train the model in `folder`; returns losses, learning rates and gradient norms of every update, and the parameters."""
    model = SentenceTransformer(str(folder), device="cpu").to(dtype)
    seen: dict[str, list[float]] = {"losses": [], "learning_rates": [], "gradient_norms": []}
    clip, step = torch.nn.utils.clip_grad_norm_, torch.optim.AdamW.step

    def noted_clip(*arguments, **options):
        norm = clip(*arguments, **options)
        seen["gradient_norms"].append(norm.item())
        return norm

    def noted_step(self, closure=None):
        seen["learning_rates"].append(self.param_groups[0]["lr"])
        return step(self, closure)

    with monkeypatch.context() as patches:
        patches.setattr(torch.nn.utils, "clip_grad_norm_", noted_clip)
        patches.setattr(torch.optim.AdamW, "step", noted_step)
        losses = [MultipleNegativesRankingLoss(model), CosineSimilarityLoss(model)]
        for loss in losses:
            loss.register_forward_hook(lambda _module, _inputs, output: seen["losses"].append(output.item()))
        model.old_fit(
            list(zip(map(Loader, fixed_batches()), losses, strict=True)),
            epochs=EPOCHS,
            warmup_steps=WARMUP_STEPS,
            optimizer_params={"lr": LEARNING_RATE},
            weight_decay=WEIGHT_DECAY,
            max_grad_norm=MAX_GRAD_NORM,
            show_progress_bar=False,
        )
    # The module of the reference that holds the encoder calls it "model".
    return seen, {name.removeprefix("model."): value for name, value in model[0].named_parameters()}
