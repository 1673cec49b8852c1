"""Record the golden files: what the reference libraries compute, for machines that do not have them.

python -m tests.golden.record        (needs the extra `reference`)
"""

import json
from pathlib import Path

import transformers
from safetensors.torch import save_file

from tests.comparison import CASES, GOLDEN_CASES
from tests.parity.reference import record


def main() -> None:
    """Write one file a case."""
    for case in GOLDEN_CASES:
        metadata = {"config": json.dumps(CASES[case]), "made_with": f"transformers {transformers.__version__}"}
        recording = {name: tensor.contiguous() for name, tensor in record(CASES[case]).items()}
        save_file(recording, Path(__file__).parent / f"{case}.safetensors", metadata=metadata)


if __name__ == "__main__":
    main()
