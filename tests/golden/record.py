"""Record the golden files: what the reference libraries compute, for machines that do not have them.

python -m tests.golden.record        (needs the extra `reference`)
"""

import json
import tempfile
from pathlib import Path

import pytest
import sentence_transformers
import torch
import transformers
from safetensors.torch import load_file, save_file

from tests.comparison import CASES, GOLDEN_CASES
from tests.parity.reference import record
from tests.parity.reference_training import reference_run
from tests.tiny import tiny_folder
from tests.training.training_case import NO_DROPOUT, TRAINING_MODEL


def main() -> None:
    """Write one file a case, and one for a training run."""
    record_training()
    for case in GOLDEN_CASES:
        metadata = {"config": json.dumps(CASES[case]), "made_with": f"transformers {transformers.__version__}"}
        recording = {name: tensor.contiguous() for name, tensor in record(CASES[case]).items()}
        save_file(recording, Path(__file__).parent / f"{case}.safetensors", metadata=metadata)


def record_training() -> None:
    """What `old_fit` does in float64 with a tiny RoBERTa: its folder's weights, every step, and the parameters at the end."""
    with tempfile.TemporaryDirectory() as temporary, pytest.MonkeyPatch.context() as patches:
        folder = tiny_folder(Path(temporary) / "model", TRAINING_MODEL, **NO_DROPOUT)
        start = {f"weights/{name}": tensor for name, tensor in load_file(folder / "model.safetensors").items()}
        seen, parameters = reference_run(folder, torch.float64, patches)
    end = {f"trained/{name}": tensor.detach().contiguous() for name, tensor in parameters.items()}
    metadata = {"steps": json.dumps(seen), "made_with": f"sentence-transformers {sentence_transformers.__version__}"}
    save_file(start | end, Path(__file__).parent / "training.safetensors", metadata=metadata)


if __name__ == "__main__":
    main()
