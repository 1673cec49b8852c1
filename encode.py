#!/usr/bin/env python3
"""Turn texts into vectors.

python encode.py "한 남자가 음식을 먹는다." "한 남자가 빵을 먹는다."
python encode.py -m jhgan/ko-sroberta-multitask -i sentences.txt -o vectors.npy
python encode.py --help
"""

from minisbert.cli.encode import main
from minisbert.cli.shared import leave

if __name__ == "__main__":
    leave(main())
