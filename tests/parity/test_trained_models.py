"""Proves parity on small trained models with the real Korean vocabularies, where such models are at hand.

They are looked for in the folder `shared` beside the checkout: models/ko-mini-* (each with reference.json and
reference.safetensors, recorded with sentence-transformers 6.2.0) and data/kor-nlu-datasets. Elsewhere the tests are skipped.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from minisbert import SentenceEncoder
from minisbert.evaluation import spearman
from minisbert.similarity import similarity_pairwise
from minisbert.training.evaluators import read_evaluator

SHARED = Path(__file__).resolve().parents[3] / "shared"
KORSTS_TEST = SHARED / "data" / "kor-nlu-datasets" / "KorSTS" / "sts-test.tsv"
MODELS = sorted(SHARED.glob("models/ko-mini-*"))
pytestmark = pytest.mark.skipif(not MODELS, reason="no folder of trained models beside the checkout")


@pytest.fixture(params=MODELS, ids=lambda folder: folder.name, scope="module")
def folder(request):
    return request.param


@pytest.fixture(scope="module")
def model(folder):
    return SentenceEncoder.from_pretrained(folder, device="cpu")


@pytest.fixture(scope="module")
def reference(folder):
    return json.loads((folder / "reference.json").read_text())


def test_token_ids(model, reference):
    tokenized = model.tokenizer(reference["sentences"])
    assert [tokenized.row(row).tolist() for row in range(64)] == reference["token_ids"]


def test_embeddings(model, reference, folder):
    expected = load_file(folder / "reference.safetensors")["embeddings"]
    np.testing.assert_allclose(model.encode(reference["sentences"]), expected, atol=1e-5)


def test_the_eight_korsts_numbers(model, reference):
    evaluator = read_evaluator(KORSTS_TEST)
    found = evaluator(model)
    # KorSTS test has eight pairs of equal sentences. Their cosine is exactly 1 here, so they share a rank; in the reference
    # it is 1 up to rounding, and the order among them is an accident. Spearman must lie between the best and the worst order.
    expected = dict(reference["korsts_test"])
    best, worst = spearman_of_cosine_by_tie_order(model, evaluator.sentences1, evaluator.sentences2, evaluator.scores)
    assert worst - 1e-6 <= expected.pop("spearman_cosine") <= best + 1e-6
    assert worst <= found.pop("spearman_cosine") <= best
    for name, value in expected.items():
        assert abs(found[name] - value) < 1e-6, name


def spearman_of_cosine_by_tie_order(model, sentences1, sentences2, scores):
    cosine = similarity_pairwise(*(model.encode(each).astype(np.float64) for each in (sentences1, sentences2)))
    equal = np.array([a == b for a, b in zip(sentences1, sentences2, strict=True)])
    assert equal.sum() == 8
    by_score = np.where(equal, scores * 1e-9, 0.0)
    return spearman(cosine.numpy() + by_score, scores), spearman(cosine.numpy() - by_score, scores)


def test_published_token_ids():
    """What the tokenizer of klue/roberta-base makes of two sentences, as published."""
    model = SentenceEncoder.from_pretrained(SHARED / "models" / "ko-mini-roberta", device="cpu")
    tokenized = model.tokenizer(["토크나이저는 텍스트를 토크 단위로 나눈다", "첫 번째 문장은 짧다."])
    assert tokenized.row(0).tolist() == [0, 9157, 7461, 2190, 2259, 8509, 2138, 9157, 5385, 2200, 20950, 2]
    assert tokenized.row(1).tolist() == [0, 1656, 1141, 3135, 6265, 2073, 1599, 2062, 18, 2]
