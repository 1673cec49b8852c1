"""Proves the measures of finding against values worked out by hand, and against sentence-transformers where it is installed."""

import math
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from minisbert.errors import InputError
from minisbert.search.evaluation import (
    BINARY,
    RETRIEVAL,
    BinaryClassificationEvaluator,
    InformationRetrievalEvaluator,
    TripletEvaluator,
    binary_metrics,
    retrieval_metrics,
)
from tests.tiny import tiny_model


def test_retrieval_worked_out_by_hand():
    found = np.zeros((2, 100), dtype=bool)
    found[0, [1, 4]] = True  # both relevant texts, in places 2 and 5
    found[1, 11] = True  # one of four, in place 12
    metrics = dict(zip(RETRIEVAL, retrieval_metrics(found, np.array([2, 4])), strict=True))
    expected = {
        **{"accuracy@1": 0, "accuracy@3": 1 / 2, "accuracy@5": 1 / 2, "accuracy@10": 1 / 2},
        **{"precision@1": 0, "precision@3": 1 / 6, "precision@5": 1 / 5, "precision@10": 1 / 10},
        **{"recall@1": 0, "recall@3": 1 / 4, "recall@5": 1 / 2, "recall@10": 1 / 2},
        "mrr@10": (1 / 2 + 0) / 2,
        "ndcg@10": (1 / math.log2(3) + 1 / math.log2(6)) / (1 + 1 / math.log2(3)) / 2,
        "map@100": ((1 / 2 + 2 / 5) / 2 + (1 / 12) / 4) / 2,
    }
    assert metrics == pytest.approx(expected, abs=1e-15)


def test_thresholds_worked_out_by_hand():
    # From the most similar pair on: same, not, same and same with equal scores, not.
    scores, labels = np.array([0.5, 0.9, 0.1, 0.7, 0.5]), np.array([1, 1, 0, 0, 1])
    metrics = dict(zip(BINARY, binary_metrics(scores, labels), strict=True))
    expected = {
        **{"accuracy": 4 / 5, "accuracy_threshold": 0.3, "f1": 6 / 7, "f1_threshold": 0.3, "precision": 3 / 4, "recall": 1},
        "ap": 1 / 3 * 1 + 2 / 3 * 3 / 4,
        "mcc": (3 * 1 - 1 * 0) / math.sqrt(4 * 3 * 2 * 1),
    }
    assert metrics == pytest.approx(expected, abs=1e-15)
    # Where most pairs differ and the model is wrong about all, the best is to call none the same.
    accuracy, threshold = binary_metrics(np.array([0.9, 0.8, 0.1]), np.array([0, 0, 1]))[:2]
    assert (accuracy, threshold > 0.9) == (2 / 3, True)


class Rows:
    """A model whose vectors are known: a text is the numbers of its vector."""

    def encode(self, sentences, show_progress_bar=None):
        return np.array([[float(number) for number in text.split()] for text in sentences], dtype=np.float32)

    encode_query = encode_document = encode


def test_triplets_worked_out_by_hand():
    evaluator = TripletEvaluator(["1 0", "1 0", "0 1"], ["1 1", "0 1", "0 2"], ["0 1", "2 1", "0 3"], "dev")
    assert evaluator(Rows()) == {"dev_cosine_accuracy": 1 / 3}, "equal is not nearer"


def test_of_equal_cosines_the_smaller_id_comes_first():
    corpus = {"b": "1 0", "a": "2 0", "c": "0 1"}
    for relevant, expected in (("a", 1.0), ("b", 0.5), ("c", 1 / 3)):
        evaluator = InformationRetrievalEvaluator({"q": "3 0"}, corpus, {"q": {relevant}})
        assert evaluator(Rows())["cosine_mrr@10"] == pytest.approx(expected)


def test_the_main_number():
    retrieval = InformationRetrievalEvaluator({"q": "밥"}, {"a": "밥", "b": "물"}, {"q": ["b"]}, "dev")
    result = retrieval(tiny_model())
    assert retrieval.main_score(result) == result["dev_cosine_ndcg@10"] == pytest.approx(1 / math.log2(3))
    triplets = TripletEvaluator(["밥"], ["밥"], ["물"])
    assert triplets.main_score(triplets(tiny_model())) == 1
    binary = BinaryClassificationEvaluator(["밥", "밥"], ["밥", "물"], [1, 0])
    assert binary.main_score(binary(tiny_model())) == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: InformationRetrievalEvaluator({"q": "밥"}, {"a": "물"}, {"r": ["a"]}), "no query has a relevant text"),
        (lambda: InformationRetrievalEvaluator({"q": "밥"}, {"a": "물"}, {"q": ["b"]}), "'b', which is not in the corpus"),
        (lambda: TripletEvaluator(["밥"], ["물"], []), "1 anchors, 1 positives, 0 negatives"),
        (lambda: TripletEvaluator([], [], []), "at least one anchor"),
        (lambda: BinaryClassificationEvaluator(["밥"], ["물"], []), "1 second sentences, 0 labels"),
        (lambda: BinaryClassificationEvaluator(["밥", "물"], ["물", "밥"], [1, 1]), "labels of both kinds"),
        (lambda: BinaryClassificationEvaluator(["밥", "물"], ["물", "밥"], [0, 0.5]), "0 and 1, and no other"),
    ],
)
def test_what_cannot_be_measured_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


TEXTS = [f"{number}번째 질문" for number in range(300)]


class Drawn:
    """A model for both libraries: vectors of 8 columns, drawn for each text, whose cosines lie far apart.

    Those of a tiny model are all near 0.9999, where rounding decides the order.
    """

    similarity_fn_name = "cosine"
    model_card_data = SimpleNamespace(set_evaluation_metrics=lambda *_: None)

    def similarity(self, a, b):
        return F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).T

    def encode(self, sentences, convert_to_tensor=False, **_):
        rows = [np.random.default_rng(TEXTS.index(text)).standard_normal(8) for text in sentences]
        vectors = np.array(rows, dtype=np.float32)
        return torch.from_numpy(vectors) if convert_to_tensor else vectors

    encode_query = encode_document = encode


def compare(ours, theirs):
    """Both give the same numbers, by the same names; thresholds are cosines, which are rounded to float32."""
    found, expected = ours(Drawn()), theirs(Drawn())
    assert found.keys() == expected.keys()
    assert theirs.primary_metric == ours.columns[ours.shown[0]]
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, abs=1e-6 if "threshold" in key else 1e-9), key


@pytest.mark.reference
def test_retrieval_is_that_of_the_reference():
    from sentence_transformers.sentence_transformer import evaluation

    draw, texts = random.Random(1), TEXTS
    queries = {f"q{number}": text for number, text in enumerate(texts[:60])}
    corpus = {f"c{number}": text for number, text in enumerate(texts[60:])}
    relevant = {query: set(draw.sample(list(corpus), draw.choice([1, 2, 12, 120]))) for query in list(queries)[5:]}
    ours = InformationRetrievalEvaluator(queries, corpus, relevant, "찾기")
    compare(ours, evaluation.InformationRetrievalEvaluator(queries, corpus, relevant, name="찾기"))


@pytest.mark.reference
def test_triplets_are_those_of_the_reference():
    from sentence_transformers.sentence_transformer import evaluation

    sides = TEXTS[:64], TEXTS[64:128], TEXTS[128:192]  # 64, because theirs is a mean in float32
    compare(TripletEvaluator(*sides), evaluation.TripletEvaluator(*sides))


@pytest.mark.reference
@pytest.mark.parametrize("seed", range(5))
def test_thresholds_are_those_of_the_reference(seed):
    from sentence_transformers.sentence_transformer import evaluation

    first, second = TEXTS[:150], TEXTS[150:]
    labels = random.Random(seed).choices([0, 1], [seed + 1, 3], k=len(first))
    ours = BinaryClassificationEvaluator(first, second, labels, "dev")
    compare(ours, evaluation.BinaryClassificationEvaluator(first, second, labels, name="dev"))
