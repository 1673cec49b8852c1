#!/usr/bin/env python3
"""Fine-tune a sentence-embedding model, by a published recipe or on your own pairs.

python train.py --recipe ko-sroberta-multitask -o weights/my-multitask
python train.py --train pairs.tsv --loss cosine --model jhgan/ko-sroberta-multitask --epochs 5 -o weights/my-pairs
python train.py --help
"""

from minisbert.cli.shared import leave
from minisbert.cli.train import main

if __name__ == "__main__":
    leave(main())
