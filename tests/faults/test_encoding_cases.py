"""Proves the cases of encoding, E1 to E13, that need no command line, for each of the three architectures."""

import random
import resource
import sys
import time

import numpy as np
import pytest
import tokenizers
import torch

from minisbert import SentenceEncoder
from minisbert.errors import InputError
from minisbert.text import long_text
from minisbert.text.tokenizer import Tokenizer
from tests.tiny import CONFIGS, SENTENCES, tiny_folder, tiny_model

architectures = pytest.mark.parametrize("model_type", list(CONFIGS))
SAME_TEXT = 1e-5  # float32 on a CPU: largest difference of one text's vectors between batches


@architectures
def test_E1_no_text_and_empty_texts(model_type):
    model = tiny_model(model_type)
    assert model.encode([]).shape == (0, 24)
    empty, blank = model.encode(["", " \t\n  "])
    assert np.isfinite(empty).all()
    np.testing.assert_array_equal(empty, blank)


@pytest.mark.parametrize("row", [None, 7, b"abc", ("a", "b"), float("nan"), ["밥"]])
def test_E2_a_row_that_is_no_text_is_named(row):
    with pytest.raises(TypeError, match="row 5000: every text must be a str, found"):
        tiny_model().encode(["밥"] * 5000 + [row])


def test_E3_a_lone_surrogate_is_named():
    with pytest.raises(InputError, match="row 5000: character 2 "):
        tiny_model().encode(["밥"] * 5000 + ["밥\ud800"])


TEN_MEGABYTES = {
    "words": "한 남자가 밥을 먹는다. ",
    "lines": "한 남자가 밥을 먹는다.\n",
    "no white space": "고양이는",
    "no white space, but punctuation": "밥,빵;",
    "digits": "0123456789",
    "kana": "ひらがな",
    "accents": "é",
    "decomposed Hangul": "\u1112\u1161\u11ab",
    "blanks": " ",
    "line ends": "\r\n",
    "zero width": "\u200b",
}


@pytest.mark.filterwarnings("ignore:.* normal form C")
@pytest.mark.parametrize("piece", TEN_MEGABYTES.values(), ids=TEN_MEGABYTES)
def test_E4_a_line_of_ten_megabytes(piece):
    model = tiny_model()
    text = piece * (10_000_000 // len(piece.encode()))
    memory, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    vector = model.encode(text)
    assert time.perf_counter() - start < 2
    unit = 1 if sys.platform == "darwin" else 1024  # bytes
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) * unit < 200e6
    np.testing.assert_array_equal(vector, model.encode(text[:10_000]))


def random_text(generator):
    """Some thousand characters of all that a tokenizer treats in a way of its own, in runs of any length."""
    kinds = [
        "밥",
        "한 남자가 ",
        "x",
        "9",
        " ",
        "\n",
        "\t",
        ".",
        "?!",
        "中",
        "é",
        "e\u0301",
        "\u1112\u1161\u11ab",
        "あ",
        "İ",
    ]
    kinds += [
        "a",
        "ab",
        "[MASK]",
        "[",
        "]",
        "[UNK] ",
        "\u200b",
        "\x00",
        "\x85",
        "\u3000",
        "\u0301",
        "ß",
        "\U00020000",
        "a b ",
        "다.",
    ]
    runs = [generator.choice(kinds) * int(generator.paretovariate(0.6)) for _ in range(generator.randint(1, 60))]
    return "".join(run[:3000] for run in runs)[: generator.randint(1, 12_000)]


@pytest.mark.parametrize("strip_accents", [True, False])
@pytest.mark.parametrize("max_seq_length", [3, 8, 64])
def test_E4_the_start_of_a_text_has_the_first_tokens_of_the_whole(monkeypatch, strip_accents, max_seq_length):
    monkeypatch.setattr(long_text, "CHARACTERS_PER_TOKEN", 2)  # cut early, often too early
    backend = tiny_model().tokenizer.backend
    backend.normalizer = tokenizers.normalizers.BertNormalizer(strip_accents=strip_accents, lowercase=strip_accents)
    backend.model.max_input_chars_per_word = 20
    backend.add_special_tokens(["<한국>", "[a]"])
    tokenizer = Tokenizer(backend, 0, max_seq_length, "[UNK]")
    assert long_text.longest_word(backend) is not None
    generator = random.Random(max_seq_length)
    texts = [random_text(generator) for _ in range(200)]
    cut = tokenizer(texts)
    whole = backend.encode_batch(texts)
    assert [cut.row(row).tolist() for row in range(len(texts))] == [encoding.ids for encoding in whole]
    assert cut.truncated == sum(bool(encoding.overflowing) for encoding in whole)
    assert 0 < cut.truncated < len(texts)


def test_E4_texts_are_not_cut_where_the_end_could_decide_about_the_start(monkeypatch):
    monkeypatch.setattr(long_text, "CHARACTERS_PER_TOKEN", 2)
    pieces = [("<unk>", 0.0), ("▁", -1.0), ("a", -5.0), ("aa", -2.0), ("aab", -1.0), ("b", -5.0)]
    unigram = tokenizers.Tokenizer(tokenizers.models.Unigram(pieces, unk_id=0))
    unigram.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    with_words = tiny_model().tokenizer.backend
    with_words.add_tokens(["밥 빵", "한국"])
    for backend in (unigram, with_words):
        tokenizer = Tokenizer(backend, 0, 5)
        texts = ["a" * 1001 + "b", "밥 빵" * 1000, "aab " * 500, "가" * 1000 + "한국", "가" * 1000 + "한국 가"]
        assert tokenizer(texts).ids.tolist() == [token for e in backend.encode_batch(texts) for token in e.ids]


def test_E5_all_positions_of_roberta_can_be_used(tmp_path):
    folder = tiny_folder(tmp_path / "모델", "roberta", max_position_embeddings=514)
    model = SentenceEncoder.from_pretrained(folder, device="cpu", max_seq_length=512)
    reports = []
    exact, longer = model.encode(["밥 " * 510, "밥 " * 511], on_report=reports.append)
    np.testing.assert_allclose(longer, exact, atol=SAME_TEXT)
    assert (reports[0].tokens, reports[0].truncated) == (1024, 1)
    assert model.encode("밥 " * 100_000).shape == (24,)
    with pytest.raises(InputError, match="at most 512"):
        model.max_seq_length = 513


def batch(model, width, rows=SENTENCES):
    """A batch of fixed width: input_ids (B, width) and attention_mask (B, width)."""
    ids = torch.full((len(rows), width), model.tokenizer.pad_token_id)
    mask = torch.zeros(ids.shape, dtype=torch.bool)
    for row, text in enumerate(rows):
        tokens = torch.from_numpy(model.tokenizer([text]).ids.astype(int))
        ids[row, : len(tokens)] = tokens
        mask[row, : len(tokens)] = True
    return ids, mask


@architectures
@torch.inference_mode()
def test_E7_at_a_fixed_shape_a_vector_depends_on_its_text_alone(model_type):
    model = tiny_model(model_type)
    ids, mask = batch(model, 16)
    vectors = model(ids, mask)
    order = torch.tensor([3, 5, 0, 4, 1, 2])
    assert torch.equal(model(ids[order], mask[order]), vectors[order])
    others, masks = batch(model, 16, [SENTENCES[0], *SENTENCES[:0:-1]])
    assert torch.equal(model(others, masks)[0], vectors[0])
    noise = torch.randint(5, 30, ids.shape, generator=torch.Generator().manual_seed(0))
    if model_type != "roberta":  # whose positions are counted by what is not the padding token, as in the reference
        assert torch.equal(model(torch.where(mask, ids, noise), mask), vectors)


@architectures
@torch.inference_mode()
def test_E8_batch_size_and_padding_change_nothing_but_rounding(model_type):
    model = tiny_model(model_type)
    texts = [" ".join(SENTENCES[row % 6].split()[: 1 + row % 4]) for row in range(64)]
    alone = torch.cat([model(*batch(model, len(model.tokenizer([text]).ids), [text])) for text in texts])
    for size in (1, 7, 64):
        for width in (16, 25, 40):
            parts = [model(*batch(model, width, texts[i : i + size])) for i in range(0, 64, size)]
            torch.testing.assert_close(torch.cat(parts), alone, atol=SAME_TEXT, rtol=0)


@architectures
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_E11_poor_rows_have_a_direction(model_type, dtype):
    model = tiny_model(model_type).to(dtype)
    vectors = model.encode(["모르는낱말뿐", "밥", ""], normalize_embeddings=True)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("message", ["CUDA out of memory", "DefaultCPUAllocator: can't allocate memory"])
def test_E13_batches_are_halved_until_they_fit(monkeypatch, message):
    model = tiny_model()
    expected = model.encode(SENTENCES * 20)
    forward = model.encoder.forward

    def small_memory(input_ids, *rest):
        if len(input_ids) > 3:
            raise (torch.OutOfMemoryError if "CUDA" in message else RuntimeError)(message)
        return forward(input_ids, *rest)

    monkeypatch.setattr(model.encoder, "forward", small_memory)
    with pytest.warns(UserWarning, match="out of memory: batches are halved") as warnings:
        vectors = model.encode(SENTENCES * 20)
    assert len(warnings) == 1
    np.testing.assert_allclose(vectors, expected, atol=SAME_TEXT)


def test_E13_other_failures_are_not_taken_for_it(monkeypatch):
    model = tiny_model()

    def broken(*_):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(model.encoder, "forward", broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        model.encode(SENTENCES)
