"""Proves that the columns of a file say what it measures, and that nothing in it is measured as something else."""

import pytest

from minisbert.errors import InputError
from minisbert.evaluation import EmbeddingSimilarityEvaluator
from minisbert.search.evaluation import BinaryClassificationEvaluator, InformationRetrievalEvaluator, TripletEvaluator
from minisbert.training.evaluators import read_evaluator
from minisbert.training.examples import read_examples


@pytest.fixture
def read(tmp_path):
    """Writes lines of values to a .tsv; returns its evaluator and what was said to be understood."""

    def read(*lines, reader=read_evaluator):
        path = tmp_path / "dev.tsv"
        path.write_text("\n".join(line.replace(" | ", "\t") for line in lines), encoding="utf-8")
        said = {}
        return reader(path, on_columns=said.__setitem__), said.get(path)

    return read


def test_scores(read):
    evaluator, said = read("score | sentence1 | sentence2", "5 | 비가 온다 | 비가 내린다", "1.5 | 눈이 온다 | 해가 뜬다")
    assert said == "anchor = sentence1, positive = sentence2, label = score / 5; measured: the order of the scores"
    assert isinstance(evaluator, EmbeddingSimilarityEvaluator)
    assert (evaluator.sentences2, evaluator.scores.tolist()) == (["비가 내린다", "해가 뜬다"], [1, 0.3])
    evaluator, _ = read("a | b | label", "비가 온다 | 비가 내린다 | 1", "눈이 온다 | 해가 뜬다 | 0.5")
    assert isinstance(evaluator, EmbeddingSimilarityEvaluator), "0.5 is no yes or no"


def test_the_same_or_not(read):
    evaluator, said = read("질문1 | 질문2 | label", "몇 시야? | 지금 몇 시? | 1", "몇 시야? | 어디야? | 0")
    assert said == "anchor = 질문1, positive = 질문2, label = label; measured: which pairs are the same"
    assert isinstance(evaluator, BinaryClassificationEvaluator)
    assert (evaluator.sentences1, evaluator.labels.tolist()) == (["몇 시야?"] * 2, [1, 0])


def test_pairs(read):
    evaluator, said = read("답 | 질문", "세 시 | 몇 시야?", "네 시 | 몇 시야?", "서울 | 어디야?", "서울 | 집은?")
    assert said == "anchor = 질문, positive = 답; measured: search"
    assert isinstance(evaluator, InformationRetrievalEvaluator)
    assert evaluator.queries == ["몇 시야?", "어디야?", "집은?"]
    assert evaluator.relevant == [{"세 시", "네 시"}, {"서울"}, {"서울"}]
    assert sorted(evaluator.corpus) == ["네 시", "서울", "세 시"]


def test_triplets(read):
    evaluator, said = read("anchor | positive | negative_1 | negative_2", "몇 시야? | 세 시 | 서울 | 밥")
    assert said.endswith("positive = positive, negative = negative_1, negative = negative_2; measured: which text is nearer")
    assert isinstance(evaluator, TripletEvaluator)
    assert (evaluator.anchors, evaluator.positives, evaluator.negatives) == (["몇 시야?"] * 2, ["세 시"] * 2, ["서울", "밥"])


def test_classes(read):
    rows = "시간 | 몇 시야?", "장소 | 어디야?", "시간 | 지금 몇 시?", "시간 | 시각은?", "장소 | 어디 있어?", "날씨 | 비 와?"
    evaluator, said = read("분류 | 문장", *rows)
    assert said == "text = 문장, class = 분류; measured: search"
    assert isinstance(evaluator, InformationRetrievalEvaluator)
    assert evaluator.queries == ["몇 시야?", "어디야?"], "the class of one text has nothing to find"
    found = dict(zip(evaluator.ids, evaluator.corpus, strict=True))
    assert [{found[key] for key in keys} for keys in evaluator.relevant] == [{"지금 몇 시?", "시각은?"}, {"어디 있어?"}]
    numbered, _ = read("text | class", "몇 시야? | 1", "지금 몇 시? | 1", "어디야? | 2")
    assert numbered.queries == ["몇 시야?"], "a class may be a number"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a | b | c | label", "몇 시야? | 세 시 | 서울 | 1"], "a number goes with two texts, not with 3"),
        (["a | b", "몇 시야? | 세 시", "지금은? | 세 시"], "one positive in all"),
        (["text | class", "몇 시야? | 1", "어디야? | 2"], "no class has two texts"),
        (["text | class", "몇 시야? | 1", "지금 몇 시? | 1"], "one class in all"),
        (["a | b | score", "몇 시야? | 세 시 | 5"], "at least two pairs, each with a score"),
        (["text | class | category", "몇 시야? | 1 | 2"], "'class' and 'category' are for the same"),
        (["text | score", "몇 시야? | 3"], "no column for the positive among text, score"),
        (["text | class", "17 | 1", "18 | 1"], "'text' holds numbers, no texts"),
    ],
)
def test_what_measures_nothing_is_refused(read, lines, message):
    with pytest.raises(InputError, match=message) as error:
        read(*lines)
    assert "dev.tsv: " in str(error.value)


def test_classes_do_not_train(read):
    with pytest.raises(
        InputError, match=r"dev\.tsv: found text = 문장, class = 분류: no two texts; it measures search, with --dev"
    ):
        read("분류 | 문장", "시간 | 몇 시야?", "시간 | 지금 몇 시?", reader=read_examples)
    examples, said = read("category | 질문 | 답", "시간 | 몇 시야? | 세 시", reader=read_examples)
    assert (examples[0].texts, said) == (("몇 시야?", "세 시"), "anchor = 질문, positive = 답; left out: category")
