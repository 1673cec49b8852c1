"""Proves that losses, batches and the training loop are those of sentence-transformers: values, gradients, every step."""

import random

import numpy as np
import pytest
import torch

pytest.importorskip("sentence_transformers")

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import losses as theirs
from sentence_transformers.sentence_transformer.datasets import NoDuplicatesDataLoader
from sentence_transformers.sentence_transformer.readers import InputExample

from minisbert import SentenceEncoder
from minisbert.training.examples import Batch, Example, NoDuplicatesBatches, nli_triplets, read_nli
from minisbert.training.loop import fit
from minisbert.training.losses import (
    CosineSimilarityLoss,
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
    Objective,
)
from minisbert.training.recipes import RECIPES
from tests.parity.reference_training import Loader, reference_run
from tests.parity.test_trained_models import SHARED
from tests.tiny import CONFIGS, SENTENCES, tiny_folder, tiny_model
from tests.training.training_case import NO_DROPOUT, TRIPLETS, Fixed, compare, train

pytestmark = [pytest.mark.reference, pytest.mark.filterwarnings("ignore")]

WIDTH, ROWS = 12, 5
KORNLI = SHARED / "data" / "kor-nlu-datasets" / "KorNLI" / "xnli.test.ko.tsv"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("model_type", CONFIGS)
def test_every_step_of_two_objectives(model_type, dtype, tmp_path, monkeypatch):
    folder = tiny_folder(tmp_path / "model", model_type, **NO_DROPOUT)
    expected, their_parameters = reference_run(folder, dtype, monkeypatch)
    model = SentenceEncoder.from_pretrained(folder, device="cpu", dtype=dtype)
    steps = train(model)
    assert len(steps) == 9
    assert max(max(step.gradient_norms.values()) for step in steps) > 0.05, "clipping must have had something to do"
    compare(steps, expected, model, their_parameters)


@pytest.mark.parametrize("model_type", CONFIGS)
def test_T9_a_trained_model_opens_in_sentence_transformers(model_type, tmp_path):
    model = tiny_model(model_type)
    train(model, output=tmp_path / "model")
    theirs = SentenceTransformer(str(tmp_path / "model"), device="cpu").encode(SENTENCES)
    np.testing.assert_allclose(model.encode(SENTENCES), theirs, rtol=0, atol=1e-5)


QUESTIONS = [
    ("강아지가 밥을 안 먹어요", "사료를 따뜻한 물에 불려 주세요"),
    ("고양이가 물을 안 마셔요", "물그릇을 여러 곳에 두세요"),
    ("산책은 하루에 몇 번이 좋아요?", "두 번이면 충분해요"),
    ("발톱은 언제 깎아요?", "두세 주에 한 번 깎아 주세요"),
    ("예방 접종은 언제부터 해요?", "생후 여섯 주부터 시작해요"),
    ("고양이 털이 너무 빠져요", "매일 빗질을 해 주세요"),
    ("강아지가 자꾸 짖어요", "무엇을 보고 짖는지 먼저 살펴보세요"),
    ("간식은 얼마나 줘도 돼요?", "하루 먹는 양의 십분의 일까지요"),
    ("목욕은 얼마나 자주 시켜요?", "한 달에 한두 번이면 돼요"),
    ("화장실을 못 가려요", "같은 자리에서 칭찬해 주세요"),
]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_pet_question_recipe(dtype, tmp_path):
    """Ten questions with their answers, label 1.0: the same losses in every step."""
    recipe = RECIPES["pet-questions"]
    folder = tiny_folder(tmp_path / "model", "roberta", **NO_DROPOUT)
    theirs_model = SentenceTransformer(str(folder), device="cpu").to(dtype)
    expected = []
    loss = theirs.CosineSimilarityLoss(theirs_model)
    loss.register_forward_hook(lambda _module, _inputs, output: expected.append(output.item()))
    batch = Batch(tuple(map(list, zip(*QUESTIONS, strict=True))), [1.0] * len(QUESTIONS))
    theirs_model.old_fit(
        [(Loader(Fixed([[batch]])), loss)],
        epochs=recipe.plan.epochs,
        warmup_steps=recipe.plan.warmup_steps,
        optimizer_params={"lr": recipe.plan.learning_rate},
        weight_decay=recipe.plan.weight_decay,
        show_progress_bar=False,
    )
    found = []
    fit(
        SentenceEncoder.from_pretrained(folder, device="cpu", dtype=dtype),
        [Objective(Fixed([[batch]]), CosineSimilarityLoss(), "own")],
        recipe.plan,
        on_step=lambda report: found.append(report.losses["own"]),
    )
    assert len(found) == recipe.plan.epochs
    assert found == pytest.approx(expected, abs=1e-11 if dtype == torch.float64 else 1e-6)


class GivenEmbeddings(torch.nn.Module):
    """Stands for a model of the reference: the features of a text are its embedding already."""

    def forward(self, features):
        return {"sentence_embedding": features["sentence_embedding"]}

    def get_embedding_dimension(self):
        return WIDTH


LOSSES = {
    "ranking": (MultipleNegativesRankingLoss(), theirs.MultipleNegativesRankingLoss, 2),
    "ranking, hard negatives": (MultipleNegativesRankingLoss(), theirs.MultipleNegativesRankingLoss, 3),
    "ranking, two hard negatives": (MultipleNegativesRankingLoss(), theirs.MultipleNegativesRankingLoss, 4),
    "cosine": (CosineSimilarityLoss(), theirs.CosineSimilarityLoss, 2),
}


@pytest.mark.parametrize("matryoshka", [None, ((12, 8, 3), None), ((12, 5), (1.0, 0.25))])
@pytest.mark.parametrize("name", LOSSES)
def test_losses(name, matryoshka):
    ours, their_class, columns = LOSSES[name]
    their_model = GivenEmbeddings()
    their_loss = their_class(their_model)
    if matryoshka is not None:
        dims, weights = matryoshka
        ours = MatryoshkaLoss(ours, dims, weights)
        their_loss = theirs.MatryoshkaLoss(their_model, their_loss, list(dims), weights)
    generator = torch.Generator().manual_seed(0)
    data = [torch.randn(ROWS, WIDTH, generator=generator, dtype=torch.float64) for _ in range(columns)]
    labels = torch.rand(ROWS, generator=generator)
    results = []
    for side in ("ours", "theirs"):
        embeddings = [column.clone().requires_grad_() for column in data]
        if side == "ours":
            value = ours(embeddings, labels)
        else:
            # Fresh features a call: the Matryoshka loss of the reference truncates what it finds in them.
            value = their_loss([{"sentence_embedding": embedding} for embedding in embeddings], labels)
        value.backward()
        results.append((value.item(), torch.stack([embedding.grad for embedding in embeddings])))
    assert abs(results[0][0] - results[1][0]) < 1e-10
    torch.testing.assert_close(results[0][1], results[1][1], atol=1e-10, rtol=0)


def batches_of_the_reference(examples, batch_size, seed, iterations):
    random.seed(seed)
    loader = NoDuplicatesDataLoader([InputExample(texts=list(example.texts)) for example in examples], batch_size)
    return [[[tuple(row.texts) for row in batch] for batch in loader] for _ in range(iterations)]


def batches_of_ours(examples, batch_size, seed, iterations):
    batches = NoDuplicatesBatches(examples, batch_size, seed)
    return [[list(zip(*batch.texts, strict=True)) for batch in batches] for _ in range(iterations)]


@pytest.mark.parametrize("batch_size", [1, 3, 4])
def test_no_duplicates_batches(batch_size):
    pairs = [Example(triplet.texts[:2]) for triplet in TRIPLETS]
    examples = [*pairs, Example(("밥", " 밥 ")), Example(("밥", "빵")), Example(("A", "빵")), Example(("a ", "물"))]
    assert batches_of_ours(examples, batch_size, 777, 3) == batches_of_the_reference(examples, batch_size, 777, 3)


@pytest.mark.skipif(not KORNLI.exists(), reason="no KorNLI beside the checkout")
def test_no_duplicates_batches_on_kornli():
    examples = nli_triplets(read_nli(KORNLI), seed=777)
    assert len(examples) > 1000
    assert batches_of_ours(examples, 64, 777, 2) == batches_of_the_reference(examples, 64, 777, 2)
