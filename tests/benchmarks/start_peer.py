"""Encode one sentence with sentence-transformers; bench_start.py measures it.

python tests/benchmarks/start_peer.py MODEL_FOLDER SENTENCE
"""

import sys

from sentence_transformers import SentenceTransformer

if __name__ == "__main__":
    folder, sentence = sys.argv[1:]
    print(SentenceTransformer(folder, device="cpu").encode(sentence))
