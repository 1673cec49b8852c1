"""Proves the readers, the triplets and the batches: by hand on a few rows, by count on KorSTS and KorNLI."""

import json
from pathlib import Path

import pytest

from minisbert.errors import InputError
from minisbert.training.examples import (
    Batch,
    Example,
    NoDuplicatesBatches,
    ShuffledBatches,
    make_batch,
    nli_triplets,
    read_examples,
    read_nli,
)

CORPORA = Path(__file__).resolve().parents[3] / "shared" / "data" / "kor-nlu-datasets"
KLUE = CORPORA.parent / "klue"
STS_HEADER = "genre\tfilename\tyear\tid\tscore\tsentence1\tsentence2\n"
NLI_HEADER = "sentence1\tsentence2\tgold_label\n"


@pytest.fixture
def file(tmp_path):
    """Writes a file of the given name and text, and returns its path."""

    def write(name, text):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def message(reader, path):
    with pytest.raises(InputError) as caught:
        list(reader(path))
    text = str(caught.value)
    assert text.isprintable()
    return text.removeprefix(f"{path}:")


def test_scored_pairs(file):
    rows = 'news\ta\t2024\t1\t2.500\t"비가 온다.\t눈이 "온다".\nnews\t\t\t2\t5\t밥\u2028을 먹는다.\t 밥을 먹는다. \n'
    path = file("sts.tsv", STS_HEADER + rows)
    assert read_examples(path) == [
        Example(('"비가 온다.', '눈이 "온다".'), 0.5),
        Example(("밥\u2028을 먹는다.", " 밥을 먹는다. "), 1.0),
    ]


def test_read_nli(file):
    path = file("nli.tsv", NLI_HEADER + "개가 뛴다\t동물이 움직인다\tentailment\r\n개가 뛴다\t개가 잔다\tcontradiction")
    assert read_nli(path) == [
        ("개가 뛴다", "동물이 움직인다", "entailment"),
        ("개가 뛴다", "개가 잔다", "contradiction"),
    ]


def test_quotation_marks_of_nli_are_characters(file):
    row = ('"그는 ""네""라고 했다"', '"', "neutral")
    assert read_nli(file("nli.tsv", NLI_HEADER + "\t".join(row) + "\n")) == [row]


def test_bad_rows_of_nli(file):
    good = "가\t나\tneutral\n"
    for row in ("가\t나\t-", "가\t나\tEntailment", "가\t나\t", "가\t나", "\t나\tneutral"):
        path = file("nli.tsv", NLI_HEADER + good + row + "\n" + good)
        assert message(read_nli, path).startswith("3: ")
        bad: list[InputError] = []
        assert read_nli(path, bad.append) == [("가", "나", "neutral")] * 2
        assert len(bad) == 1


def test_bad_headers(file):
    assert message(read_examples, file("a.tsv", "sentence1\tscore\n가\t1\n")) == (
        " no column for the positive among sentence1, score; expected two texts, such as anchor and positive, or text and class"
    )
    assert message(read_examples, file("a.tsv", "")) == " no examples in it"
    assert message(read_examples, file("a.tsv", "가\t나\t3.0\n다\t라\t1.0\n")).startswith("1: '3.0' names no column")
    assert len(read_examples(file("a.jsonl", '{"1": "가", "2": "나"}\n'))) == 1
    assert message(read_examples, file("a.tsv", "질문\t답\n")) == " no examples in it"
    assert message(read_examples, file("a.tsv", "글\t글\n가\t나\n")).startswith("1: two columns have the same name")
    assert message(read_examples, file("a.txt", "글\n가\n")).startswith(" no column for the positive among 글")
    assert message(read_examples, file("a.tsv", NLI_HEADER + "가\t나\tneutral\n")).startswith(
        " the column 'gold_label' is not a number but a word; train on KorNLI by a recipe"
    )
    assert message(read_nli, file("a.tsv", STS_HEADER + "news\t\t\t1\t5\t가\t나\n")).startswith(" found anchor = sentence1")


@pytest.mark.parametrize("form", ["tsv", "csv", "jsonl"])
def test_own_examples(form, file):
    rows = [("질문, 하나", "답 하나", "1.0"), ("질문 둘", "답 둘", "-0.5")]
    names = ("question", "answer", "label")
    if form == "jsonl":
        records = [{**dict(zip(names, row, strict=True)), "label": float(row[2])} for row in rows]
        text = "\n".join(json.dumps(record, ensure_ascii=False) for record in records)
    elif form == "csv":
        text = "\n".join(",".join(f'"{value}"' for value in row) for row in (names, *rows))
    else:
        text = "\n".join("\t".join(row) for row in (names, *rows))
    expected = [Example(("질문, 하나", "답 하나"), 1.0), Example(("질문 둘", "답 둘"), -0.5)]
    assert read_examples(file(f"pairs.{form}", text)) == expected


def test_own_triplets_scores_and_korsts(file):
    assert read_examples(file("a.tsv", "a\tb\tc\n가\t나\t다\n")) == [Example(("가", "나", "다"))]
    assert read_examples(file("a.tsv", "score\ta\tb\n5\t가\t나\n")) == [Example(("가", "나"), 1.0)]
    path = file("sts.tsv", STS_HEADER + "news\t\t2024\t1\t2.5\t가\t나\n")
    assert read_examples(path) == [Example(("가", "나"), 0.5)]
    both = file("a.tsv", "a\tb\tscore\tlabel\n가\t나\t5\t1\n")
    assert message(read_examples, both) == " the columns 'score' and 'label' are for the same; leave one out"
    # Without a score, sentence1 and sentence2 are columns like any others.
    assert read_examples(file("a.tsv", "sentence1\tsentence2\twrong\n가\t나\t다\n")) == [Example(("가", "나", "다"))]


def test_csv_rows_of_several_lines(file):
    path = file("a.csv", 'a,b\n"첫 줄\n둘째 줄","""따옴표"""\n가\n')
    assert message(read_examples, path) == "4: 1 columns, expected 2"
    assert read_examples(path, lambda _: None) == [Example(("첫 줄\n둘째 줄", '"따옴표"'))]
    assert message(read_examples, file("a.csv", 'a,b\n가,나\n"열린 채,나\n다,라\n')).startswith("3: not CSV: ")


def test_bad_json_lines(file):
    good = '{"a": "가", "b": "나"}\n'
    for row, expected in {
        "가": "not JSON",
        "[]": "expected a JSON object, found list",
        '{"a": "가"}': "expected the fields of the first one: a, b",
        '{"a": null, "b": "나"}': "the field 'a' is not a text but null",
        '{"a": ["가"], "b": "나"}': "the field 'a' is not a text but list",
        '{"a": "\\ud800", "b": "나"}': "the field 'a': character 1 is no Unicode character",
        '{"a": " ", "b": "나"}': "the column 'a' is empty",
    }.items():
        path = file("a.jsonl", good + row + "\n" + good)
        assert message(read_examples, path).startswith(f"2: {expected}")
        bad: list[InputError] = []
        assert len(read_examples(path, bad.append)) == 2
        assert len(bad) == 1
    path = file("a.jsonl", '{"a": "가", "b": "나", "label": NaN}\n')
    assert message(read_examples, path) == "1: 'nan' is not between -1 and 1; call the column score if it goes to 5"


def test_files_that_are_not_text(file):
    assert "CP949" in message(read_examples, file("a.tsv", STS_HEADER.encode() + "a\tb\tc\td\t1\t가\t나\n".encode("cp949")))
    with pytest.raises(FileNotFoundError):
        read_examples(file("a.tsv", "").with_name("없는 파일.tsv"))


def test_triplets_worked_out_by_hand():
    pairs = [
        ("개가 뛴다", "동물이 움직인다", "entailment"),
        ("개가 뛴다", "개가 잔다", "contradiction"),
        ("개가 뛴다", "개가 운다", "neutral"),
        ("물이 차다", "물이 뜨겁다", "contradiction"),
    ]
    # Seen from "동물이 움직인다" there is an entailment but no contradiction, from "개가 잔다" the other way round.
    assert nli_triplets(pairs, seed=1) == [
        Example(("개가 뛴다", "동물이 움직인다", "개가 잔다")),
        Example(("동물이 움직인다", "개가 뛴다", "개가 잔다")),
    ]


def test_triplets_draw_by_the_seed():
    pairs = [("밥", f"참 {n}", "entailment") for n in range(9)] + [("밥", f"거짓 {n}", "contradiction") for n in range(9)]
    assert nli_triplets(pairs, 1) == nli_triplets(pairs, 1)
    drawn = {triplet.texts for seed in range(20) for triplet in nli_triplets(pairs, seed)[:1]}
    assert len(drawn) > 10
    assert all(a == "밥" and b.startswith("참") and c.startswith("거짓") for a, b, c in drawn)
    # A pair that occurs twice is no likelier to be drawn.
    assert nli_triplets(pairs + pairs[:1] * 50, 1) == nli_triplets(pairs, 1)


def letters(count):
    return [Example((f"{n}가", f"{n}나"), float(n)) for n in range(count)]


def test_make_batch():
    assert make_batch(letters(2)) == Batch((["0가", "1가"], ["0나", "1나"]), [0.0, 1.0])
    assert make_batch([Example(("가", "나"))]).labels is None


def test_shuffled_batches():
    batches = ShuffledBatches(letters(7), 3, seed=5)
    first, second = list(batches), list(batches)
    assert len(batches) == 3
    assert [len(batch.labels) for batch in first] == [3, 3, 1]
    orders = [[label for batch in epoch for label in batch.labels] for epoch in (first, second)]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(7))
    again = ShuffledBatches(letters(7), 3, seed=5)
    assert [list(again), list(again)] == [first, second]
    assert list(ShuffledBatches(letters(7), 3, seed=6)) != first


def test_no_text_twice_in_a_batch():
    examples = [Example((f"물음 {n % 10}", f"답 {n % 7}")) for n in range(70)]
    batches = NoDuplicatesBatches(examples, 6, seed=3)
    assert len(batches) == 11
    for batch in [*batches, *batches]:
        texts = [text for column in batch.texts for text in column]
        assert len(set(texts)) == len(texts) == 12
    a, b = (NoDuplicatesBatches(examples, 6, seed=3) for _ in range(2))
    assert [*a, *a] == [*b, *b]


def test_case_and_surrounding_white_space_make_no_difference():
    examples = [Example(("Rice", "밥")), Example((" rice ", "빵")), Example(("물", "술"))]
    for batch in NoDuplicatesBatches(examples, 2, seed=0):
        assert "물" in batch.texts[0]
    # Inside one example a text may occur twice.
    assert len(list(NoDuplicatesBatches([Example(("밥", "밥")), Example(("물", "물"))], 2, seed=0))) == 1


@pytest.mark.parametrize("count", [2, 3, 50])
def test_a_batch_that_cannot_be_filled_is_an_error(count):
    examples = [Example(("같은 글", f"{n}")) for n in range(count)]
    with pytest.raises(InputError, match=f"from these {count} examples; they share their texts, and two different ones"):
        next(iter(NoDuplicatesBatches(examples, 2, seed=0)))


def test_the_last_examples_are_not_given_up_too_early():
    # Of 30 examples only one goes with the others, wherever the shuffles put it.
    examples = [*(Example(("같은 글", f"{n}")) for n in range(29)), Example(("다른 글", "답"))]
    for seed in range(50):
        assert "다른 글" in next(iter(NoDuplicatesBatches(examples, 2, seed))).texts[0]


@pytest.mark.skipif(not KLUE.exists(), reason="no KLUE beside the checkout")
def test_files_of_klue():
    records = json.loads((KLUE / "klue-sts-v1.1_dev.json").read_text(encoding="utf-8"))
    expected = [Example((row["sentence1"], row["sentence2"]), row["labels"]["label"] / 5) for row in records]
    assert read_examples(KLUE / "klue-sts-v1.1_dev.json") == expected
    assert len(expected) == 519
    records = json.loads((KLUE / "klue-nli-v1.1_dev.json").read_text(encoding="utf-8"))
    expected = [(row["premise"], row["hypothesis"], row["gold_label"]) for row in records]
    assert read_nli(KLUE / "klue-nli-v1.1_dev.json") == expected


@pytest.mark.skipif(not CORPORA.exists(), reason="no KorNLI and KorSTS beside the checkout")
def test_korsts_and_kornli():
    counts = {name: len(read_examples(CORPORA / "KorSTS" / f"sts-{name}.tsv")) for name in ("train", "dev", "test")}
    assert counts == {"train": 5749, "dev": 1500, "test": 1379}
    counts = {name: len(read_nli(CORPORA / "KorNLI" / f"xnli.{name}.ko.tsv")) for name in ("dev", "test")}
    assert counts == {"dev": 2490, "test": 5010}
