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


@pytest.fixture(autouse=True)
def no_hub(monkeypatch):
    """Clients that look for a model on the Hub must not wait for it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


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


def test_llama_index(model):
    embedding = snippet("llama_index", "llama_index.core").LlamaIndexEmbedding(
        model=model, model_name=model.fingerprint(), embed_batch_size=512
    )
    from llama_index.core import VectorStoreIndex
    from llama_index.core.schema import TextNode

    nodes = [TextNode(text=text, id_=text) for text in TEXTS]
    index = VectorStoreIndex(nodes, embed_model=embedding)
    kept = index.vector_store.data.embedding_dict
    np.testing.assert_array_equal([kept[text] for text in TEXTS], model.encode_document(TEXTS))
    assert embedding.get_text_embedding(TEXTS[0]) == model.encode_document(TEXTS[0]).tolist()
    assert asyncio.run(embedding.aget_query_embedding(QUESTIONS[0])) == model.encode_query(QUESTIONS[0]).tolist()
    for question, answers in zip(QUESTIONS, (RAIN, NOODLES, PIANO), strict=True):
        assert index.as_retriever(similarity_top_k=1).retrieve(question)[0].text in answers
    assert model.fingerprint() in embedding.to_json()  # what LlamaIndex keeps vectors by in its caches


def test_chroma(model, tmp_path):
    function = snippet("chroma", "chromadb").ChromaEmbeddingFunction(str(default_model()))
    function.model = model  # with prompts
    import chromadb

    client = chromadb.PersistentClient(tmp_path, chromadb.Settings(anonymized_telemetry=False))
    texts = client.create_collection("texts", embedding_function=function)
    texts.add(ids=TEXTS, documents=TEXTS)
    np.testing.assert_allclose(texts.get(TEXTS, include=["embeddings"])["embeddings"], model.encode_document(TEXTS), atol=1e-6)
    np.testing.assert_array_equal(function.embed_query(QUESTIONS), model.encode_query(QUESTIONS))
    opened = client.get_collection("texts")  # finds the function by its name
    for collection in (texts, opened):
        found = collection.query(query_texts=QUESTIONS, n_results=1)["ids"]
        assert [LABELS[TEXTS.index(each[0])] for each in found] == ["비", "국수", "피아노"]
    nearest = model.similarity(model.encode_query(QUESTIONS[0]), model.encode_document(TEXTS)).max()
    distance = texts.query(query_texts=QUESTIONS[0], n_results=1)["distances"][0][0]
    assert distance == pytest.approx(1 - float(nearest), abs=1e-5)


@pytest.fixture
def other_models(monkeypatch):
    """The names of all models that are loaded with sentence-transformers from here on."""
    package = pytest.importorskip("sentence_transformers")
    names = []
    monkeypatch.setattr(package.SentenceTransformer, "__init__", lambda _, name, *rest, **options: names.append(name))
    return names


def test_keybert(model, other_models):
    embedder = snippet("keybert", "keybert").KeybertEmbedder(model)
    from keybert import KeyBERT

    text = "한 소녀가 무대에서 피아노를 연주하고 있다. 밖에는 비가 내린다."
    found = dict(KeyBERT(embedder).extract_keywords(text))
    assert not other_models
    for word, score in found.items():
        assert score == pytest.approx(float(model.similarity(model.encode(text), model.encode(word))), abs=1e-4)
    assert max(found, key=found.get) == "피아노를"


def test_keybert_and_bertopic_ignore_what_they_do_not_know(model, other_models):
    """Why the embedders are needed; when this fails, README can say that the model works as it is."""
    pytest.importorskip("keybert").KeyBERT(model)
    pytest.importorskip("bertopic").backend._utils.select_backend(model, language="korean")
    assert [name.rpartition("/")[2] for name in other_models] == ["paraphrase-multilingual-MiniLM-L12-v2"] * 2


def test_bertopic(model, other_models):
    embedder = snippet("bertopic", "bertopic").BertopicEmbedder(model)
    from bertopic import BERTopic
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA

    topics = BERTopic(embedding_model=embedder, umap_model=PCA(5), hdbscan_model=KMeans(3, random_state=0))
    numbers, _ = topics.fit_transform(TEXTS)
    assert not other_models
    assert len(set(zip(numbers, LABELS, strict=True))) == len(set(numbers)) == 3
    centres = [model.encode(TEXTS)[np.array(numbers) == number].mean(axis=0) for number in range(3)]
    np.testing.assert_allclose(topics.topic_embeddings_, centres, atol=1e-5)
    for question, label in zip(QUESTIONS, ("비", "국수", "피아노"), strict=True):
        nearest = topics.find_topics(question, top_n=1)[0][0]
        assert numbers[LABELS.index(label)] == nearest


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


def test_datasets(model):
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_dict({"text": TEXTS})
    encoded = rows.map(lambda batch: {"vector": model.encode(batch["text"])}, batched=True)
    np.testing.assert_array_equal(np.array(encoded["vector"], dtype=np.float32), model.encode(TEXTS))
    np.testing.assert_array_equal(model.encode(rows["text"]), model.encode(TEXTS))
    other = SentenceEncoder.from_pretrained(default_model(), device="cpu")
    other.encoder.embeddings.token.weight.data.mul_(2)
    names = []
    for each in (other, other, model):
        names.append(rows.map(lambda batch, each=each: {"vector": each.encode(batch["text"])}, batched=True)._fingerprint)
    once, again, unlike = names
    assert once == again != unlike  # its cache takes vectors up again, and never those of another model


def mteb_tasks():
    """Two tasks of our own sentences."""
    from datasets import Dataset
    from mteb.mocks.mock_tasks import retrieval, sts

    similar = sts.MockSTSTask()
    scores = [float(one == other) for one, other in zip(LABELS, LABELS[1:] + LABELS[:1], strict=True)]
    pairs = {"sentence1": TEXTS, "sentence2": TEXTS[1:] + TEXTS[:1], "score": scores}
    similar.dataset, similar.data_loaded = {"test": Dataset.from_dict(pairs)}, True
    search = retrieval.MockRetrievalTask()
    data = retrieval.RetrievalSplitData(
        queries=Dataset.from_list([{"id": f"q{row}", "text": text} for row, text in enumerate(QUESTIONS)]),
        corpus=Dataset.from_list([{"id": f"d{row}", "text": text, "title": ""} for row, text in enumerate(TEXTS)]),
        relevant_docs={f"q{row}": {f"d{4 * row + offset}": 1 for offset in range(4)} for row in range(3)},
        top_ranked=None,
    )
    search.dataset, search.data_loaded = {"default": {"test": data, "val": data}}, True
    return [similar, search]


def test_mteb(model, reference):
    encoder = snippet("mteb", "mteb").MtebEncoder(model, "me/ko-mini")
    import mteb
    from mteb.results.task_result import TaskError

    ours, theirs = (mteb.evaluate(each, mteb_tasks(), cache=None) for each in (encoder, reference))
    for result, expected in zip(ours, theirs, strict=True):
        (scores,), (expected_scores,) = result.scores["test"], expected.scores["test"]
        numbers = {name: value for name, value in expected_scores.items() if isinstance(value, float)}
        assert len(numbers) >= 8
        assert {name: scores[name] for name in numbers} == pytest.approx(numbers, abs=1e-5, nan_ok=True)
    kinds = {"query": model.encode_query, "document": model.encode_document, None: model.encode}
    for kind, encode in kinds.items():
        as_mteb_calls = {"task_metadata": None, "hf_split": "test", "hf_subset": "default", "batch_size": 4}
        prompt_type = kind and mteb.types.PromptType(kind)
        vectors = encoder.encode([{"text": TEXTS[:5]}, {"text": TEXTS[5:]}], prompt_type=prompt_type, **as_mteb_calls)
        np.testing.assert_allclose(vectors, encode(TEXTS), atol=1e-6)
    results = mteb.mock_run(encoder).task_results.values()  # all kinds of tasks; None are those of pictures and sounds
    assert [result for result in results if isinstance(result, TaskError)] == []
    assert sum(result is not None for result in results) >= 20
