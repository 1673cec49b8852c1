"""Proves that libraries of others work with our model: each is given the model, or a snippet around it, and uses its vectors.

Each test runs where its client is installed (extra 'clients'). The snippets stand in README.md too.
"""

import asyncio
import dataclasses
import importlib

import numpy as np
import pytest

from minisbert import SentenceEncoder
from minisbert.cli.shared import default_model

pytestmark = [pytest.mark.reference, pytest.mark.filterwarnings("ignore")]

RAIN = ["비가 많이 내리고 있다.", "밖에 비가 세차게 내린다.", "오늘은 하루 종일 비가 온다.", "비가 그치지 않고 계속 온다."]
NOODLES = ["남자가 국수를 먹고 있다.", "한 남자가 국수를 먹는다.", "여자가 식당에서 국수를 먹는다.", "아이가 국수를 먹는다."]
PIANO = [
    "소녀가 피아노를 연주한다.",
    "한 소녀가 피아노를 치고 있다.",
    "그녀는 피아노를 연주하고 있다.",
    "소년이 피아노를 친다.",
]
TEXTS, LABELS = RAIN + NOODLES + PIANO, ["비"] * 4 + ["국수"] * 4 + ["피아노"] * 4
QUESTIONS = ["비가 올까?", "국수를 먹는 사람이 있나?", "누가 피아노를 치고 있니?"]
PROMPTS = {"query": "질문: ", "document": "글: "}  # with them, what was encoded as which is seen in the vectors


@pytest.fixture(scope="module")
def model():
    model = SentenceEncoder.from_pretrained(default_model(), device="cpu")
    model.folder = dataclasses.replace(model.folder, prompts=PROMPTS)
    return model


def snippet(name, package):
    """A module of the folder snippets, which imports a package that need not be there."""
    pytest.importorskip(package)
    return importlib.import_module(f"tests.clients.snippets.{name}")


def test_langchain(model):
    embeddings = snippet("langchain", "langchain_core").LangchainEmbeddings(model)
    from langchain_core.vectorstores import InMemoryVectorStore

    store = InMemoryVectorStore.from_texts(TEXTS, embeddings)
    np.testing.assert_array_equal([entry["vector"] for entry in store.store.values()], model.encode_document(TEXTS))
    assert embeddings.embed_query(QUESTIONS[0]) == model.encode_query(QUESTIONS[0]).tolist()
    assert asyncio.run(embeddings.aembed_query(QUESTIONS[0])) == embeddings.embed_query(QUESTIONS[0])
    for question, answers in zip(QUESTIONS, (RAIN, NOODLES, PIANO), strict=True):
        assert store.similarity_search(question, k=1)[0].page_content in answers


def test_scikit_learn(model):
    pytest.importorskip("sklearn")
    from sklearn.cluster import KMeans
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import adjusted_rand_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    groups = KMeans(3, n_init=10, random_state=0).fit_predict(model.encode(TEXTS))
    assert adjusted_rand_score(LABELS, groups) == 1
    classifier = make_pipeline(FunctionTransformer(model.encode), LogisticRegression())  # texts in, labels out
    assert list(classifier.fit(TEXTS, LABELS).predict(QUESTIONS)) == ["비", "국수", "피아노"]
    alone = LogisticRegression().fit(model.encode(TEXTS), LABELS)
    np.testing.assert_allclose(classifier.predict_proba(QUESTIONS), alone.predict_proba(model.encode(QUESTIONS)), atol=1e-6)


@pytest.fixture(scope="module")
def reference():
    """The same folder in sentence-transformers: what works with our model must give the same with it."""
    package = pytest.importorskip("sentence_transformers")
    return package.SentenceTransformer(str(default_model()), device="cpu", prompts=PROMPTS)


def evaluators(teacher):
    """Every evaluator of sentence-transformers that works on vectors, with little data."""
    from sentence_transformers.sentence_transformer import evaluation as known

    shifted, other = TEXTS[1:] + TEXTS[:1], TEXTS[4:] + TEXTS[:4]
    alike = [float(one == next_one) for one, next_one in zip(LABELS, LABELS[1:] + LABELS[:1], strict=True)]
    corpus, queries = dict(enumerate(TEXTS)), dict(enumerate(QUESTIONS))
    relevant = {number: set(range(4 * number, 4 * number + 4)) for number in queries}
    samples = [
        {"query": question, "positive": TEXTS[4 * number : 4 * number + 4], "negative": other[4 * number : 4 * number + 4]}
        for number, question in queries.items()
    ]
    return [
        known.EmbeddingSimilarityEvaluator(TEXTS, shifted, alike, write_csv=False),
        known.BinaryClassificationEvaluator(TEXTS, shifted, [int(label) for label in alike], write_csv=False),
        known.TripletEvaluator(TEXTS, shifted, other, write_csv=False),
        known.InformationRetrievalEvaluator(queries, corpus, relevant, write_csv=False),
        known.RerankingEvaluator(samples, write_csv=False),
        known.ParaphraseMiningEvaluator(corpus, [(0, 1), (4, 5), (8, 9)], write_csv=False),
        known.TranslationEvaluator(TEXTS, shifted, write_csv=False),
        known.MSEEvaluator(TEXTS, shifted, teacher_model=teacher, write_csv=False),
    ]


def test_evaluators_of_sentence_transformers(model, reference):
    for evaluator in evaluators(reference):
        expected = evaluator(reference)
        assert evaluator(model) == pytest.approx(expected, abs=1e-5), type(evaluator).__name__


def test_util_of_sentence_transformers(model, reference):
    from sentence_transformers import util

    ours, theirs = util.paraphrase_mining(model, TEXTS), util.paraphrase_mining(reference, TEXTS)
    assert [pair[1:] for pair in ours] == [pair[1:] for pair in theirs]
    np.testing.assert_allclose([pair[0] for pair in ours], [pair[0] for pair in theirs], atol=1e-5)
    hits = util.semantic_search(model.encode_query(QUESTIONS), model.encode_document(TEXTS), top_k=1)
    assert [LABELS[found[0]["corpus_id"]] for found in hits] == ["비", "국수", "피아노"]
    groups = util.community_detection(model.encode(TEXTS), threshold=0.5, min_community_size=3)
    assert groups == util.community_detection(reference.encode(TEXTS), threshold=0.5, min_community_size=3)
    np.testing.assert_allclose(
        util.cos_sim(*model.encode(TEXTS[:2])), reference.similarity(*reference.encode(TEXTS[:2])), atol=1e-5
    )


def test_mine_hard_negatives_of_sentence_transformers(model, reference, tmp_path):
    datasets = pytest.importorskip("datasets")
    from sentence_transformers.util import mine_hard_negatives

    pairs = datasets.Dataset.from_dict({"anchor": QUESTIONS, "positive": [RAIN[0], NOODLES[1], PIANO[1]]})
    options = {"corpus": TEXTS, "num_negatives": 2, "relative_margin": 0.05, "verbose": False}
    expected = mine_hard_negatives(pairs, reference, **options).to_list()
    assert len(expected) > 2
    assert mine_hard_negatives(pairs, model, **options).to_list() == expected
    for _ in range(2):  # the second time the vectors are read from the folder
        assert mine_hard_negatives(pairs, model, cache_folder=str(tmp_path), **options).to_list() == expected
