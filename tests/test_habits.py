"""Proves that what people are used to from other libraries works here too, or says by name what to do instead."""

import copy
import json
import multiprocessing

import numpy as np
import pytest
import torch

from minisbert import SentenceEncoder
from minisbert.errors import InputError
from minisbert.evaluation import EmbeddingSimilarityEvaluator
from minisbert.training import Batch, CosineSimilarityLoss, Objective, Plan, fit
from tests.model_files import edit_json
from tests.tiny import SENTENCES, tiny_folder, tiny_model


class Column:
    """A column of a table, as pandas and datasets have it: neither a list nor a Sequence, but one dimension of texts."""

    ndim = 1

    def __init__(self, texts):
        self.texts = texts

    def __iter__(self):
        return iter(self.texts)


class DataFrame(Column):
    ndim = 2


@pytest.mark.parametrize("wrap", [tuple, iter, np.array, Column, lambda texts: (text for text in texts)])
def test_every_ordered_row_of_texts_is_taken(wrap):
    np.testing.assert_array_equal(tiny_model().encode(wrap(SENTENCES)), tiny_model().encode(SENTENCES))


@pytest.mark.parametrize(
    ("sentences", "found"),
    [
        ({"a": "밥"}, "dict, a table; choose one of its columns"),
        (DataFrame(["밥"]), "DataFrame, a table"),
        (np.array([["밥", "빵"]]), "ndarray, a table"),
        ({"밥", "빵"}, "set, which has no order"),
        (frozenset(["밥"]), "frozenset, which has no order"),
        ({"a": "밥"}.keys(), "dict_keys, which has no order"),
        (b"abc", "bytes"),
        (7, "int"),
        (None, "NoneType"),
    ],
)
def test_what_is_no_row_of_texts_is_refused_by_name(sentences, found):
    with pytest.raises(TypeError, match=f"sentences must be a text or a list of texts, found {found}"):
        tiny_model().encode(sentences)


def test_batch_size_is_the_most_rows_of_a_batch(monkeypatch):
    model = tiny_model()
    sizes = []
    forward = SentenceEncoder.forward
    monkeypatch.setattr(SentenceEncoder, "forward", lambda self, ids, mask: sizes.append(len(ids)) or forward(self, ids, mask))
    vectors = model.encode(SENTENCES * 3, batch_size=np.int64(4))
    assert max(sizes) == 4
    assert sum(sizes) == 3 * len(SENTENCES)
    np.testing.assert_allclose(vectors, tiny_model().encode(SENTENCES * 3), atol=1e-6)
    with pytest.raises(InputError, match="batch_size must be at least 1, found 0"):
        model.encode(SENTENCES, batch_size=0)
    with pytest.raises(TypeError):
        model.encode(SENTENCES, 32)  # a number of tokens, of rows? it must be named


def test_options_of_sentence_transformers_that_change_nothing_are_taken():
    model = tiny_model()
    options = {"precision": "float32", "device": "cpu", "pool": None, "chunk_size": None, "output_value": "sentence_embedding"}
    np.testing.assert_array_equal(model.encode(SENTENCES, **options), model.encode(SENTENCES))


@pytest.mark.parametrize(
    ("option", "advice"),
    [
        ({"precision": "int8"}, "precision='int8'"),
        ({"device": "cuda:7"}, r"model\.to"),
        ({"output_value": None}, "output_value=None"),
        ({"chunk_size": 100}, "batch_size"),
    ],
)
def test_options_that_are_not_supported_are_refused_by_name(option, advice):
    with pytest.raises(InputError, match=advice):
        tiny_model().encode(SENTENCES, **option)


def test_an_option_that_nobody_knows_is_refused():
    with pytest.raises(TypeError, match="no option 'batchsize'"):
        tiny_model().encode(SENTENCES, batchsize=3)


def test_tensors_one_by_one():
    model = tiny_model()
    vectors = model.encode(SENTENCES, convert_to_numpy=False)
    assert isinstance(vectors, list)
    np.testing.assert_array_equal(torch.stack(vectors).numpy(), model.encode(SENTENCES))
    assert isinstance(model.encode("밥", convert_to_numpy=False), torch.Tensor)


def test_the_mean_of_the_token_embeddings_is_the_vector():
    model = tiny_model()
    tokens = model.encode(SENTENCES, output_value="token_embeddings")
    assert [len(each) for each in tokens] == model.tokenizer(SENTENCES).lengths.tolist()
    means = np.stack([each.mean(dim=0).numpy() for each in tokens])
    np.testing.assert_allclose(means, model.encode(SENTENCES), atol=1e-6)
    assert model.encode("밥", output_value="token_embeddings").shape == (3, 24)  # [CLS] 밥 [SEP]
    with pytest.raises(InputError, match="token_embeddings come as they are"):
        model.encode(SENTENCES, output_value="token_embeddings", normalize_embeddings=True)


def test_queries_and_documents_get_the_prompts_of_their_names(tmp_path):
    prompts = {"query": "질문: ", "passage": "글: ", "corpus": "모음: "}
    folder = tiny_folder(tmp_path)
    edit_json(folder / "config_sentence_transformers.json", lambda settings: settings.update(prompts=prompts))
    model = SentenceEncoder.from_pretrained(folder, device="cpu")
    assert model.prompts == prompts
    np.testing.assert_array_equal(model.encode_query("밥"), model.encode("밥", prompt="질문: "))
    np.testing.assert_array_equal(model.encode_document(["밥"]), model.encode(["밥"], prompt_name="passage"))
    np.testing.assert_array_equal(model.encode_query("밥", prompt=""), model.encode("밥"))
    np.testing.assert_array_equal(tiny_model().encode_query("밥"), tiny_model().encode("밥"))


def test_a_path_is_loaded_with_from_pretrained(tmp_path):
    for path in (tmp_path, "jhgan/ko-sroberta-multitask"):
        with pytest.raises(TypeError, match=r"SentenceEncoder\.from_pretrained"):
            SentenceEncoder(path)
    np.testing.assert_array_equal(copy.deepcopy(tiny_model()).encode(SENTENCES), tiny_model().encode(SENTENCES))


def test_lengths_of_any_kind_of_integer(tmp_path):
    model = tiny_model()
    model.max_seq_length = np.int64(5)
    model.save_pretrained(tmp_path)
    assert SentenceEncoder.from_pretrained(tmp_path, device="cpu").max_seq_length == 5
    model.max_seq_length = None
    assert model.max_seq_length == model.config.longest_text


def test_a_dtype_may_be_named(tmp_path):
    folder = tiny_folder(tmp_path)
    assert SentenceEncoder.from_pretrained(folder, device="cpu", dtype="bfloat16").dtype == torch.bfloat16
    for wrong in ("float8", torch.int32):
        with pytest.raises(InputError, match="dtype must be one of float64, float32, bfloat16, float16"):
            SentenceEncoder.from_pretrained(folder, device="cpu", dtype=wrong)


def test_small_questions_have_the_answers_of_sentence_transformers():
    model = tiny_model()
    assert model.get_sentence_embedding_dimension() == model.get_embedding_dimension() == model.embedding_dimension == 24
    cached_by = model.model_card_data.base_model  # of other weights, vectors in a cache must have another name
    assert cached_by == model.model_card_data.base_model
    with torch.no_grad():
        next(model.encoder.parameters()).mul_(2)
    assert cached_by != model.model_card_data.base_model
    assert model.similarity_fn_name == "cosine"


def test_the_evaluator_ranks_numbers():
    numbers = EmbeddingSimilarityEvaluator(SENTENCES[:3], SENTENCES[3:], [9, 10, 11])(tiny_model())
    texts = EmbeddingSimilarityEvaluator(SENTENCES[:3], SENTENCES[3:], ["9", "10", "11"])(tiny_model())
    assert numbers == texts  # as texts, "10" < "11" < "9"
    for bad in (["밥", "1", "2"], [None, 1, 2], [float("nan"), 1, 2]):
        with pytest.raises(InputError, match="every score must be a"):
            EmbeddingSimilarityEvaluator(SENTENCES[:3], SENTENCES[3:], bad)
    with pytest.warns(UserWarning, match="all 3 scores are 5: nothing correlates with a constant"):
        EmbeddingSimilarityEvaluator(SENTENCES[:3], SENTENCES[3:], [5, 5, 5])


def test_a_plan_takes_numbers_of_numpy():
    plan = Plan(epochs=np.int64(2), learning_rate=np.float32(0.5))
    assert json.dumps(plan.settings()) == json.dumps(Plan(epochs=2, learning_rate=0.5).settings())


def test_half_precision_is_not_trained():
    model = tiny_model().bfloat16()
    with pytest.raises(InputError, match=r"a model in torch\.bfloat16 loses small updates; load it in float32"):
        fit(model, [Objective([Batch((["밥"], ["빵"]), [1.0])], CosineSimilarityLoss())], Plan(epochs=1))


def _encode_in_child(model, connection):
    torch.ones(512, 768) @ torch.ones(768, 3072)  # as large as in a model of base size
    connection.send(model.encode(["한 남자가 밥을 먹는다. " * 8] * 64))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_a_child_made_by_fork_encodes(monkeypatch):
    """The threads that computed in the parent do not exist in the child, which must not wait for them."""
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    model = tiny_model()
    expected = model.encode(["한 남자가 밥을 먹는다. " * 8] * 64)
    torch.ones(512, 768) @ torch.ones(768, 3072)
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    child = context.Process(target=_encode_in_child, args=(model, there))
    child.start()
    try:
        assert here.poll(20), "the child does not answer"
        np.testing.assert_allclose(here.recv(), expected, atol=1e-6)
    finally:
        child.kill()
        child.join()
        torch.set_num_threads(threads)
