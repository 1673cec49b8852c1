"""Losses, optimizers and the loop; the data and the recipes of the published models."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minisbert.training.examples import Batch
    from minisbert.training.loop import fit
    from minisbert.training.losses import CosineSimilarityLoss, MatryoshkaLoss, MultipleNegativesRankingLoss, Objective
    from minisbert.training.plan import Plan

__all__ = [
    "Batch",
    "CosineSimilarityLoss",
    "MatryoshkaLoss",
    "MultipleNegativesRankingLoss",
    "Objective",
    "Plan",
    "fit",
]
_MODULES = {"Batch": "examples", "Plan": "plan", "fit": "loop"}  # where these names are; the others are in losses


def __getattr__(name: str) -> Any:
    """Import a name when it is first used: `python train.py --help` need not wait for torch."""
    if name in __all__:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES.get(name, 'losses')}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
