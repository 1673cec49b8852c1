"""Proves that columns are used for what they are called, in any order, case and spelling, and the others by position."""

import csv
import json
import random
import unicodedata

import pytest

from minisbert.errors import InputError
from minisbert.training.columns import ROLES, choose_columns, role_of
from minisbert.training.evaluators import read_evaluator
from minisbert.training.examples import Example, read_examples, read_nli

NAMES = {
    "anchor": "anchor Query question question1 Sentence1 sentence_1 SENTENCE_A premise text1 질문".split(),
    "positive": "positive pos Answer question2 sentence2 sentence_b hypothesis text2 document passage 답변".split(),
    "negative": "negative negatives neg Negative_1 negative-2 hard_negative negative10".split(),
    "score": "score Scores labels.label labels.real-label 점수".split(),
    "label": "label LABELS similarity similarity_score".split(),
    "relation": ["gold_label"],
    "left out": [
        "",
        " ",
        "Unnamed: 0",
        "Unnamed: 0.1",
        "id",
        "ID",
        "idx",
        "index",
        "guid",
        "source",
        "genre",
        "split",
        "filename",
        "year",
        "test_id",
        "query-id",
        "qid1",
        "labels.binary-label",
        "annotations.agreement",
        "번호",
    ],
    "class": ["class", "Category", "intent", "group", "분류", "범주"],
    "": ["물음", "comment", "is_duplicate", "valid", "texts", "context", "anchors", "negation"],
}


def test_the_table_of_names():
    assert {name: role for role, names in NAMES.items() for name in names} == {
        name: role_of(name) for names in NAMES.values() for name in names
    }
    assert set(NAMES) == {*ROLES, ""}
    assert role_of(unicodedata.normalize("NFD", "질문")) == "anchor"  # from macOS


def write(path, names, rows):
    """A table in the form that the ending says; values are texts."""
    if path.suffix == ".json":
        path.write_text(json.dumps([dict(zip(names, row, strict=True)) for row in rows], ensure_ascii=False), encoding="utf-8")
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(dict(zip(names, row, strict=True))) for row in rows), encoding="utf-8")
    elif path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([names, *rows])
    else:
        path.write_text("\n".join("\t".join(row) for row in (names, *rows)) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("form", ["tsv", "csv", "jsonl", "json"])
def test_shuffled_and_renamed_columns_give_the_same_examples(form, tmp_path):
    """Labels are written as texts, in JSON too."""
    for seed in range(60):
        draw = random.Random(f"{form} {seed}")
        negatives = draw.randrange(4)
        kind = draw.choice(["score", "label", None])
        columns = {draw.choice(NAMES["anchor"]): ["강아지", "고양이"], draw.choice(NAMES["positive"]): ["개", "야옹이"]}
        columns |= {
            draw.choice(["negative", "Neg", "hard-negative"]) + f"_{n + 8}": [f"새 {n}", f"소 {n}"] for n in range(negatives)
        }
        if kind:
            columns[draw.choice(NAMES[kind])] = ["2.5", "5"] if kind == "score" else ["0.5", " 1"]
        columns |= {name: ["7", "나"] for name in draw.sample(NAMES["left out"], draw.randrange(4))}
        names = draw.sample(list(columns), len(columns))
        path = write(tmp_path / f"a.{form}", names, list(zip(*(columns[name] for name in names), strict=True)))
        wrong = [[f"{animal} {n}" for n in range(negatives)] for animal in ("새", "소")]
        first, second = (0.5, 1.0) if kind else (None, None)
        expected = [Example(("강아지", "개", *wrong[0]), first), Example(("고양이", "야옹이", *wrong[1]), second)]
        assert read_examples(path) == expected, names


@pytest.mark.parametrize(
    ("names", "understood"),
    [
        (["question", "answer", "score"], "anchor = question, positive = answer, label = score / 5"),
        (["", "answer", "question", "Label"], "anchor = question, positive = answer, label = Label; left out: (no name)"),
        (["guid", "물음", "답"], "anchor = 물음, positive = 답; left out: guid"),
        (["물음", "query", "뭐"], "anchor = query, positive = 물음, negative = 뭐"),
        (["a", "b", "c", "d"], "anchor = a, positive = b, negative = c, negative = d"),
        (
            ["negative_10", "negative_9", "negative", "b", "a"],
            "anchor = b, positive = a, negative = negative, negative = negative_9, negative = negative_10",
        ),
        (["a\nb", "c"], "anchor = a b, positive = c"),
    ],
)
def test_what_was_understood_is_one_line(names, understood):
    assert str(choose_columns(names, "a.csv")) == understood


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (["query", "question", "answer"], "the columns 'query' and 'question' are for the same; leave one out"),
        (["a", "b", "score", "label"], "the columns 'score' and 'label' are for the same; leave one out"),
        (["positive", "negative"], "no column for the anchor among positive, negative; expected two texts"),
        (["id", "source", "target"], "no column for the positive among id, source, target; expected two texts"),
    ],
)
def test_columns_that_do_not_fit(names, problem):
    with pytest.raises(InputError) as error:
        choose_columns(names, "a.csv")
    assert str(error.value).startswith(f"a.csv: {problem}")


def refusal(path, names, rows, reader=read_examples):
    with pytest.raises(InputError) as error:
        reader(write(path, names, rows))
    assert str(error.value).isprintable()
    return str(error.value).removeprefix(str(path))


@pytest.mark.parametrize("form", ["tsv", "csv"])
@pytest.mark.parametrize(
    "pair",
    [
        ("강아지가 밥을 안 먹어요", "사료를 물에 불려 주세요"),
        ("밥 먹었어?", "응"),
        ("밥", "먹었다."),
        ("밥", "빵", "4.5"),
        ("가" * 41, "나"),
    ],
)
def test_a_first_line_that_is_a_pair_is_refused(form, pair, tmp_path):
    problem = refusal(tmp_path / f"a.{form}", pair, [pair])
    assert problem.startswith(":1: '")
    assert problem.endswith("names no column; the first line must hold the column names, such as anchor and positive")


def test_numbers_are_no_texts(tmp_path):
    rows = [("1", "밥", "빵"), ("2", "물", "술")]
    expected = ": the column 'qno' holds numbers, no texts; leave it out, or call it score or label"
    assert refusal(tmp_path / "a.csv", ("qno", "물음", "답"), rows) == expected
    assert refusal(tmp_path / "a.csv", ("물음", "답", "qno"), [row[1:] + row[:1] for row in rows]) == expected
    (tmp_path / "a.jsonl").write_text('{"qno": 1, "물음": "밥", "답": "빵"}', encoding="utf-8")  # a number in JSON is one too
    with pytest.raises(InputError, match="the column 'qno' holds numbers, no texts"):
        read_examples(tmp_path / "a.jsonl")
    read_examples(write(tmp_path / "a.csv", ("물음", "답"), [("1", "하나"), ("둘", "2"), ("3", "셋")]))


def test_scores_of_at_most_1_are_labels(tmp_path):
    names, rows = ("a", "b", "score"), [("밥", "빵", "1.0"), ("물", "술", "0.2")]
    expected = ": no 'score' is above 1, but a score goes from 0 to 5; call the column label if it goes from 0 to 1"
    assert refusal(tmp_path / "a.csv", names, rows) == expected
    # A correlation does not depend on the scale.
    assert read_evaluator(write(tmp_path / "a.csv", names, rows)).sentences2 == ["빵", "술"]
    assert [example.label for example in read_examples(write(tmp_path / "a.csv", names, [*rows, ("길", "새", "1.5")]))] == [
        *(0.2, 0.04, 0.3)
    ]


def test_numbers_out_of_range_name_the_other_column(tmp_path):
    problem = refusal(tmp_path / "a.csv", ("a", "b", "similarity"), [("밥", "빵", "4.5")])
    assert problem == ":2: '4.5' is not between -1 and 1; call the column score if it goes to 5"
    problem = refusal(tmp_path / "a.csv", ("a", "b", "score"), [("밥", "빵", "87")])
    assert problem == ":2: '87' is not between 0 and 5"


def test_columns_of_kornli(tmp_path):
    names = ("hypothesis", "gold_label", "guid", "premise")
    assert read_nli(write(tmp_path / "a.csv", names, [("빵", "neutral", "1", "밥")])) == [("밥", "빵", "neutral")]
