"""Proves that the model card says what was trained, on what and how well, and that odd texts do not break its tables."""

import math
import re
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from minisbert.evaluation import EmbeddingSimilarityEvaluator
from minisbert.training.examples import Example
from minisbert.training.losses import CosineSimilarityLoss, MatryoshkaLoss, MultipleNegativesRankingLoss
from minisbert.training.model_card import versions, write_model_card
from minisbert.training.objectives import TrainingSet
from minisbert.training.plan import Plan
from minisbert.training.recipes import RECIPES, Recipe, Task
from tests.tiny import tiny_model

TRIPLETS = (Example(("한 남자가 밥을 먹는다.", "두 아이", "물")), Example(("a|b\n<b>&", "길", "`날씨`")))
PAIRS = (Example(("밥", "빵"), 0.2), Example(("물", "물을 마신다"), 1.0), Example(("길", "길에서"), 0.6))
SETS = [
    TrainingSet("nli", (Path("a/snli.tsv"), Path("multinli.tsv")), TRIPLETS, 568_640, MultipleNegativesRankingLoss(), 64),
    TrainingSet("sts", (Path("sts-train.tsv"),), PAIRS, 5749, MatryoshkaLoss(CosineSimilarityLoss(), (24, 8)), 8),
]


@pytest.fixture
def card(tmp_path):
    def write(recipe=RECIPES["ko-sroberta-multitask"], sets=SETS, before=None, after=None, **options):
        folder = tmp_path / "내 모델"
        folder.mkdir(exist_ok=True)
        evaluator = EmbeddingSimilarityEvaluator(["밥", "물"], ["빵", "길"], [1, 2], "sts-test") if after else None
        write_model_card(folder, tiny_model(**options), recipe, sets, evaluator, before or {}, after or {})
        return (folder / "README.md").read_text(encoding="utf-8")

    return write


def test_front_matter(card):
    front = card().split("---\n")[1].splitlines()
    for line in (
        "- sentence-transformers",
        "- dataset_size:574389",
        "- loss:MultipleNegativesRankingLoss",
        "- loss:MatryoshkaLoss",
        "- loss:CosineSimilarityLoss",
        "base_model: klue/roberta-base",
        "pipeline_tag: sentence-similarity",
        "library_name: sentence-transformers",
        "- ko",
        "license: cc-by-sa-4.0",
    ):
        assert line in front


def test_of_data_of_ones_own_nothing_is_guessed(card):
    own = [TrainingSet("own", (Path("pairs.tsv"),), PAIRS, 3, CosineSimilarityLoss(), 16)]
    front = card(Recipe("own", "team/model", (Task("own", "cosine", 16),), Plan(1)), own).split("---\n")[1]
    assert "language" not in front and "license" not in front


def test_the_base_model_is_named_as_the_hub_knows_it(card, tmp_path):
    task = Task("own", "cosine", 16)
    assert "\nbase_model: team/model\n" in card(Recipe("own", "team/model@v1", (task,), Plan(1)))
    assert "base_model:" not in card(Recipe("own", str(tmp_path), (task,), Plan(1)))
    from_nothing = card(Recipe("mini", None, (task,), Plan(1)))
    assert "made from nothing with minisbert" in from_nothing
    assert "\nlicense: cc-by-sa-4.0\n" in from_nothing


def test_data_losses_and_scores(card):
    text = card(before={"sts-test_spearman_cosine": 0.301}, after={"sts-test_spearman_cosine": 0.85604})
    assert text.startswith("---\n")
    assert "\n# 내 모델\n" in text
    assert "* Files: snli.tsv, multinli.tsv\n* Size: 568,640 training samples\n" in text
    assert "* Batch size: 64\n* Approximate statistics based on the first 2 samples:" in text
    assert "| type | string | string | float |" in text
    assert "| min: 0.20<br>mean: 0.60<br>max: 1.00 |" in text
    assert "| <code>밥</code> | <code>빵</code> | 0.20 |" in text
    assert '"scale": 20.0' in text
    assert '"CosineSimilarityLoss": {}' in text
    assert "#### Semantic Similarity\n\n| Metric | Before training | After |\n" in text
    assert "| sts-test_spearman_cosine | 0.3010 | 0.8560 |" in text
    assert "- `epochs`: 5\n- `learning_rate`: 2e-05\n- `warmup_steps`: 360\n" in text
    assert "- `seed`: 777\n" in text
    assert all(f"- {name}: {version}\n" in text for name, version in versions().items())
    assert "Evaluation" not in card() and "Metric" not in card() and "## Training Details" in card()


def test_the_hub_reads_the_scores_under_the_names_of_sentence_transformers(card):
    scores = {"sts-test_pearson_cosine": 0.84770, "sts-test_spearman_cosine": math.nan, "sts-test_spearman_dot": 0.8233}
    data = ModelCard(card(before=dict.fromkeys(scores, 0.1), after=scores)).data
    first, second = data.eval_results  # without the NaN, which is no number
    assert data.model_name == "내 모델"
    assert (first.task_name, first.task_type) == ("Semantic Similarity", "semantic-similarity")
    assert (first.dataset_name, first.dataset_type) == ("sts test", "sts-test")
    assert (first.metric_name, first.metric_type, first.metric_value) == ("Pearson Cosine", "pearson_cosine", 0.8477)
    assert (second.metric_name, second.metric_type, second.metric_value) == ("Spearman Dot", "spearman_dot", 0.8233)
    assert "model-index" not in card()


def test_every_row_of_a_table_has_its_columns(card):
    text = card()
    assert "<code>a&#124;b &lt;b>&amp;</code>" in text
    for table in re.findall(r"(?:^  \|.*\n)+", text, re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_the_usage_shows_what_the_model_computes(card):
    text = card()
    assert 'SentenceTransformer("OWNER/NAME")' in text  # elsewhere nobody has the folder of this machine
    assert "# (3, 24)" in text
    assert re.search(r"(\n#( +-?[01]\.\d{4}){3}){3}\n```", text)
    assert "(2): Normalize()" not in text
    assert "(2): Normalize()" in card(normalize=True)


def test_only_what_was_used_is_cited(card):
    assert card().count("```bibtex") == 4
    own = [TrainingSet("own", (Path("pairs.tsv"),), PAIRS, 3, CosineSimilarityLoss(), 16)]
    assert card(sets=own).count("```bibtex") == 1


def test_a_folder_named_by_a_dot(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_model_card(Path("."), tiny_model(), RECIPES["ko-sbert-sts"], SETS[1:], None, {}, {})
    assert f"\n# {tmp_path.name}\n" in Path("README.md").read_text(encoding="utf-8")
