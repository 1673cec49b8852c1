"""Proves that a tour shows what the model computes: every grid and number is compared with the model run as always."""

import dataclasses
import importlib
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch

from minisbert import SentenceEncoder
from minisbert.cli.shared import default_model
from minisbert.errors import InputError
from minisbert.models.pooling import POOLING_MODES, Pooling
from minisbert.similarity import similarity_pairwise
from minisbert.tour import Bars, Sentence, token_parts, tour, why_alike
from tests.tiny import ROWS, SENTENCES, tiny_model

FIRST, SECOND = "여자가 길에서 빵을 먹고 있다.", "고양이는 물을 마신다."
SHARED_MODELS = Path(__file__).resolve().parents[2] / "shared" / "models"
FOLDERS = [default_model(), *sorted(SHARED_MODELS.glob("ko-mini*"))]


def table(steps, title, number=0):
    """The numbers of the tables whose step or own title begins so."""
    found = [part for step in steps for part in step.parts if step.title.startswith(title) or part.title.startswith(title)]
    return found[number].numbers


def vectors(steps):
    return np.stack([part.numbers for step in steps for part in step.parts if isinstance(part, Bars)])


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("pooling", [*POOLING_MODES, "max+mean"])
@pytest.mark.parametrize("model_type", ROWS)
def test_the_vectors_are_those_of_encode_and_their_cosine_is_the_sum_of_the_grid(model_type, pooling, normalize):
    model = tiny_model(model_type, pooling=pooling, normalize=normalize)
    encoded = model.encode([FIRST, SECOND])
    steps = tour(model, [FIRST, SECOND])
    np.testing.assert_allclose(vectors(steps), encoded, atol=1e-6)
    cosine = float(similarity_pairwise(*encoded)[0])
    assert table(steps, "Why").sum() == pytest.approx(cosine, abs=1e-6)
    assert table(steps, "Pooling")[:, 1].sum() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("pooling", POOLING_MODES)
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_trained_models(folder, pooling):
    """The same where the two vectors differ; and the loss falls by about rate times length, as far as a line goes."""
    model = SentenceEncoder.from_pretrained(folder, device="cpu")
    model.pooling = Pooling(pooling)
    texts = ["어제 산 우산을 버스에 두고 내렸다.", "비가 와서 새 우산을 하나 샀다."]
    encoded, fingerprint = model.encode(texts), model.fingerprint()
    cosine = float(similarity_pairwise(*encoded)[0])
    steps = tour(model, texts, layer=model.config.layers, head=2)
    np.testing.assert_allclose(vectors(steps), encoded, rtol=1e-5, atol=1e-6)
    assert table(steps, "Why").sum() == pytest.approx(cosine, abs=1e-6)
    before, length, rate, after = table(steps, "One training").flatten()
    assert before == pytest.approx((cosine - 1) ** 2, abs=1e-6)
    assert before - after == pytest.approx(rate * length * min(length, 1), rel=0.05, abs=1e-6)  # clipped to length 1
    assert model.fingerprint() == fingerprint
    assert not model.training and all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("layer", [1, 2])
@pytest.mark.parametrize("model_type", ROWS)
def test_the_weights_of_all_heads_mix_what_the_layer_puts_out(model_type, layer):
    """Weights as shown, times the values, side by side, are what goes into the last linear map of the attention."""
    model = tiny_model(model_type)
    attention = model.encoder.layers[layer - 1].attention
    seen = {}
    attention.value.register_forward_hook(lambda _, __, output: seen.update(value=output))
    attention.output.register_forward_hook(lambda _, inputs, __: seen.update(mixed=inputs[0]))
    input_ids = model.tokenizer.pad(model.tokenizer([FIRST]), [0])[0]
    model.encoder(input_ids)
    heads = model.config.num_attention_heads
    values = np.split(seen["value"][0].detach().numpy(), heads, axis=1)
    mixed = []
    for head in range(1, heads + 1):
        steps = tour(model, [FIRST], layer, head)
        weights, scores = table(steps, "Softmax"), table(steps, "scores")
        exponentials = np.exp(scores)
        np.testing.assert_allclose(weights, exponentials / exponentials.sum(1, keepdims=True), atol=1e-6)
        mixed.append(weights @ values[head - 1])
        lengths = table(steps, "Mixture")[:, 1]
        np.testing.assert_allclose(lengths, np.linalg.norm(mixed[-1], axis=1), atol=1e-5)
    np.testing.assert_allclose(np.hstack(mixed), seen["mixed"][0].detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("fields", [{}, {"pos_att_type": ["c2p"]}, {"pos_att_type": ["p2c"]}, {"share_att_key": False}])
def test_content_and_the_two_terms_of_distance_make_deberta_s_scores(fields):
    model = tiny_model("deberta-v2", **fields)
    steps = tour(model, [" ".join(SENTENCES)], layer=2, head=2)
    terms = [table(steps, title) for title in ("content to content", "c2p", "p2c")]
    np.testing.assert_allclose(sum(terms), table(steps, "scores"), atol=1e-5)
    configured = fields.get("pos_att_type", ["c2p", "p2c"])
    assert [bool(term.any()) for term in terms[1:]] == [name in configured for name in ("c2p", "p2c")]
    buckets = table(steps, "bucket")  # distances up to 4 have one each, 5 to 8 share one, the next ends at 18
    assert buckets[19, :].tolist()[:21] == [7] + [6] * 10 + [5] * 4 + [4, 3, 2, 1, 0, -1]


def test_without_relative_attention_deberta_has_scores_like_bert():
    steps = tour(tiny_model("deberta-v2", relative_attention=False), [FIRST])
    assert "sqrt(3 · K), K = 12" in steps[3].text  # all terms that are configured count
    assert [part.title for step in steps for part in step.parts if step.title.startswith("Queries")] == ["length", "scores"]


@pytest.mark.parametrize("model_type", ROWS)
def test_a_layer_s_sums_are_those_of_its_modules(model_type):
    model = tiny_model(model_type)
    block = model.encoder.layers[0]
    seen = {}
    block.register_forward_hook(lambda _, inputs, output: seen.update(before=inputs[0][0], after=output[0]))
    block.attention.register_forward_hook(lambda *parts: seen.update(added=parts[2][0]))
    model.encoder(model.tokenizer.pad(model.tokenizer([FIRST]), [0])[0])
    steps = tour(model, [FIRST])
    expected = [seen["before"], seen["added"], seen["before"] + seen["added"]]
    found = table(steps, "Residual").T
    np.testing.assert_allclose(found[:3], [each.norm(dim=-1).detach().numpy() for each in expected], atol=1e-5)
    np.testing.assert_allclose(table(steps, "Feed-forward")[:, 0], found[3], atol=1e-6)
    np.testing.assert_allclose(table(steps, "Feed-forward")[:, 3], seen["after"].norm(dim=-1).detach().numpy(), atol=1e-5)


def test_why_takes_the_first_columns_alone_as_truncate_dim_does():
    model = tiny_model()
    short = model.encode([FIRST, SECOND], truncate_dim=8)
    grid = why_alike(Sentence(model, FIRST), Sentence(model, SECOND), width=8)
    assert grid.numbers.sum() == pytest.approx(float(similarity_pairwise(*short)[0]), abs=1e-6)


def test_parts_in_float64_are_exact():
    model = tiny_model(pooling="max").double()
    tokens = model.encoder(model.tokenizer.pad(model.tokenizer([FIRST]), [0])[0])
    torch.testing.assert_close(token_parts(model.pooling, tokens).sum(0), model.pooling(tokens)[0].detach(), atol=1e-12, rtol=0)


def test_the_prompt_of_the_model_is_put_before_the_text():
    model = tiny_model()
    model.folder = dataclasses.replace(model.folder, prompts={"query": "물 길 "}, default_prompt_name="query")
    steps = tour(model, [FIRST, SECOND])
    np.testing.assert_allclose(vectors(steps), model.encode([FIRST, SECOND]), atol=1e-6)
    cosine = float(similarity_pairwise(*model.encode([FIRST, SECOND]))[0])
    assert table(steps, "One training")[0, 0] == pytest.approx((cosine - 1) ** 2, abs=1e-6)


def test_decomposed_hangul_is_put_together():
    decomposed = unicodedata.normalize("NFD", FIRST)
    steps = tour(tiny_model(), [decomposed])
    counts = table(steps, "The text").flatten()
    assert counts[:2].tolist() == [len(decomposed), len(FIRST)] and counts[3] == 0
    np.testing.assert_allclose(vectors(steps), vectors(tour(tiny_model(), [FIRST])), atol=1e-6)


def test_unknown_words_are_named():
    assert Sentence(tiny_model(), "우주 고양이 😀").names == ("[CLS]", "[UNK] 우주", "고양이", "[UNK] 😀", "[SEP]")


@pytest.mark.parametrize("model_type", ROWS)
def test_empty_and_long_texts(model_type):
    model = tiny_model(model_type)
    steps = tour(model, ["", "고양이 밥 " * 2000])
    np.testing.assert_allclose(vectors(steps), model.encode(["", "고양이 밥 " * 2000]), atol=1e-6)
    assert table(steps, "The text")[2].tolist() == [2, model.max_seq_length]
    assert table(steps, "The text")[4].tolist() == [0, 1]


@pytest.mark.parametrize("model_type", ROWS)
def test_every_step_names_a_function_that_exists(model_type):
    steps = tour(tiny_model(model_type), [FIRST, SECOND])
    assert len(steps) == 13
    for step in steps:
        file, name = step.where.split()
        found = importlib.import_module(f"minisbert.{file.removesuffix('.py').replace('/', '.')}")
        for part in name.removesuffix("()").split("."):
            found = getattr(found, part)
        assert callable(found)


@pytest.mark.parametrize("number", [0, 3])
@pytest.mark.parametrize("name", ["layer", "head"])
def test_layers_and_heads_count_from_1(name, number):
    with pytest.raises(InputError, match=f"^{name} must be from 1 to 2 in this model, found {number}$"):
        tour(tiny_model(), [FIRST], **{name: number})


@pytest.mark.parametrize("texts", [[], ["밥"] * 3])
def test_one_text_or_two(texts):
    with pytest.raises(InputError, match=f"found {len(texts)}$"):
        tour(tiny_model(), texts)


def test_half_characters_are_refused():
    with pytest.raises(InputError, match="no Unicode character"):
        tour(tiny_model(), ["밥\ud800"])
