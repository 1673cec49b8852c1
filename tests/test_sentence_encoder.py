"""Proves that encode returns row i for text i whatever the batches, and that a model survives save and load."""

import dataclasses

import numpy as np
import pytest
import torch

from minisbert import SentenceEncoder
from minisbert.errors import InputError, NonFiniteError
from minisbert.models.pooling import Pooling
from minisbert.sentence_encoder import EncodeReport
from tests.model_files import edit_json, xlm_roberta_folder
from tests.tiny import CONFIGS, SENTENCES, tiny_folder, tiny_model

ARCHITECTURES = list(CONFIGS)


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_rows_do_not_depend_on_the_batches(model_type):
    model = tiny_model(model_type)
    alone = np.stack([model.encode(sentence) for sentence in SENTENCES])
    for max_tokens in (1, 20, 40, None):
        np.testing.assert_allclose(model.encode(SENTENCES, max_tokens_per_batch=max_tokens), alone, atol=1e-5)


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_save_and_load_keep_every_bit(model_type, tmp_path):
    model = tiny_model(model_type, pooling="cls", normalize=True)
    model.save_pretrained(tmp_path / "모델 하나")
    again = SentenceEncoder.from_pretrained(tmp_path / "모델 하나", device="cpu")
    np.testing.assert_array_equal(again.encode(SENTENCES), model.encode(SENTENCES))
    again.save_pretrained(tmp_path / "모델 하나")  # over the folder it came from
    third = SentenceEncoder.from_pretrained(tmp_path / "모델 하나", device="cpu")
    np.testing.assert_array_equal(third.encode(SENTENCES), model.encode(SENTENCES))


def test_what_is_saved_is_what_computes(tmp_path):
    model = tiny_model(normalize=True)
    model.pooling, model.normalize = Pooling("cls"), False
    model.save_pretrained(tmp_path)
    again = SentenceEncoder.from_pretrained(tmp_path, device="cpu")
    assert again.pooling.mode == "cls"
    np.testing.assert_array_equal(again.encode(SENTENCES), model.encode(SENTENCES))


def test_shapes_for_one_text_and_for_none():
    model = tiny_model()
    assert model.encode("밥").shape == (24,)
    assert model.encode([]).shape == (0, 24)
    assert model.encode(["", "   "]).shape == (2, 24)
    assert model.encode(SENTENCES, truncate_dim=5).shape == (6, 5)
    tensor = model.encode(SENTENCES, convert_to_tensor=True)
    assert isinstance(tensor, torch.Tensor)
    assert tensor.dtype == torch.float32


def test_truncation_comes_before_normalisation():
    first = tiny_model().encode(SENTENCES)[:, :5]
    np.testing.assert_array_equal(tiny_model().encode(SENTENCES, truncate_dim=5), first)
    vectors = tiny_model().encode(SENTENCES, truncate_dim=5, normalize_embeddings=True)
    np.testing.assert_allclose(vectors, first / np.linalg.norm(first, axis=1, keepdims=True), atol=1e-6)


def test_the_report_counts_what_happened():
    reports: list[EncodeReport] = []
    model = tiny_model()
    model.max_seq_length = 5
    model.encode(["한 남자가 밥을 먹는다.", "밥", "없는단어"], on_report=reports.append)
    # [CLS] + three + [SEP]; [CLS] 밥 [SEP]; [CLS] [UNK] [SEP]
    assert (reports[0].rows, reports[0].tokens, reports[0].truncated, reports[0].unknown) == (3, 11, 1, 1)


def test_decomposed_hangul_is_counted_and_warned_about():
    import unicodedata

    with pytest.warns(UserWarning, match="1 of 2 texts are not in Unicode normal form C"):
        tiny_model().encode([unicodedata.normalize("NFD", "밥을 먹는다"), "밥"])


def test_prompts_are_put_before_the_text():
    model = tiny_model()
    model.folder.prompts["query"] = "한 "
    np.testing.assert_array_equal(model.encode("밥", prompt="한 "), model.encode("한 밥"))
    np.testing.assert_array_equal(model.encode("밥", prompt_name="query"), model.encode("한 밥"))
    with pytest.raises(InputError, match="no prompt named 'passage'; it has: query"):
        model.encode("밥", prompt_name="passage")
    model.folder = dataclasses.replace(model.folder, default_prompt_name="query")
    np.testing.assert_array_equal(model.encode("밥"), model.encode("한 밥", prompt=""))


def test_the_folder_names_the_similarity():
    model = tiny_model()
    model.folder = dataclasses.replace(model.folder, similarity_fn_name="dot")
    vectors = model.encode(SENTENCES)
    np.testing.assert_allclose(model.similarity(vectors, vectors), vectors @ vectors.T, rtol=1e-5)


def test_the_folder_says_whether_case_counts(tmp_path):
    folder = tiny_folder(tmp_path / "model")
    cased = SentenceEncoder.from_pretrained(folder, device="cpu")
    assert not np.array_equal(cased.encode("A"), cased.encode("a"))
    edit_json(folder / "sentence_bert_config.json", lambda settings: settings.update(do_lower_case=True))
    lowered = SentenceEncoder.from_pretrained(folder, device="cpu")
    np.testing.assert_array_equal(lowered.encode("A [SEP] B"), cased.encode("a [SEP] b"))


def test_the_budget_of_a_batch_is_kept(monkeypatch):
    model = tiny_model()
    shapes = []
    forward = model.encoder.forward
    monkeypatch.setattr(model.encoder, "forward", lambda ids, *rest: shapes.append(ids.shape) or forward(ids, *rest))
    model.encode(SENTENCES, max_tokens_per_batch=20)
    assert sum(rows for rows, _ in shapes) == len(SENTENCES)
    assert all(rows == 1 or rows * length <= 20 for rows, length in shapes)
    shapes.clear()
    model.encode(SENTENCES)
    assert len(shapes) < len(SENTENCES)


@pytest.mark.parametrize("row", [None, 7, b"abc", ("a", "b"), float("nan")])
def test_rows_that_are_not_text_are_named(row):
    with pytest.raises(TypeError, match="row 1"):
        tiny_model().encode(["밥", row])


def test_a_lone_surrogate_is_named():
    with pytest.raises(InputError, match="row 1"):
        tiny_model().encode(["밥", "a\ud800"])
    with pytest.raises(InputError, match="prompt: character 1"):
        tiny_model().encode(["밥"], prompt="\ud800")


def test_encoding_knows_no_dropout():
    model = tiny_model()
    expected = model.encode(SENTENCES)
    np.testing.assert_array_equal(model.train().encode(SENTENCES), expected)


def test_unknown_tokens_are_counted_whatever_their_name(tmp_path):
    folder = xlm_roberta_folder(tmp_path / "model")
    (folder / "tokenizer_config.json").unlink()
    reports: list[EncodeReport] = []
    SentenceEncoder.from_pretrained(folder, device="cpu").encode("\U00013000", on_report=reports.append)
    assert reports[0].unknown > 0


def test_a_vector_that_is_not_finite_is_named():
    model = tiny_model()
    token = model.tokenizer.backend.token_to_id("물")
    with torch.no_grad():
        model.encoder.embeddings.token.weight[token] = float("nan")
    with pytest.raises(NonFiniteError, match="row 2"):
        model.encode(["밥", "빵", "물"])


@pytest.mark.parametrize("length", [0, 1, 2, 41])
def test_impossible_lengths_are_refused(length, tmp_path):
    tiny_folder(tmp_path / "m")
    with pytest.raises(InputError, match="max_seq_length"):
        SentenceEncoder.from_pretrained(tmp_path / "m", device="cpu", max_seq_length=length)


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_half_precision_comes_near(model_type, tmp_path):
    tiny_folder(tmp_path / "m", model_type)
    exact = SentenceEncoder.from_pretrained(tmp_path / "m", device="cpu").encode(SENTENCES)
    for dtype, tolerance in ((torch.bfloat16, 0.05), (torch.float16, 0.005)):  # some 10 times the rounding of a number
        model = SentenceEncoder.from_pretrained(tmp_path / "m", device="cpu", dtype=dtype)
        vectors = model.encode(SENTENCES)
        assert vectors.dtype == np.float32
        assert (np.linalg.norm(vectors - exact, axis=1) <= tolerance * np.linalg.norm(exact, axis=1)).all()


def test_out_of_memory_halves_the_batch(monkeypatch):
    model = tiny_model()
    expected = model.encode(SENTENCES)
    forward = model.encoder.forward

    def small_memory(input_ids, *rest):
        if len(input_ids) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(input_ids, *rest)

    monkeypatch.setattr(model.encoder, "forward", small_memory)
    with pytest.warns(UserWarning, match="out of memory"):
        np.testing.assert_allclose(model.encode(SENTENCES), expected, atol=1e-5)
