"""Proves what the three commands do with files as people have them: each is read rightly, or refused with the next step."""

import gzip
import io
import json
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from minisbert import SentenceEncoder
from minisbert.cli import encode, evaluate, train, train_run
from tests.tiny import tiny_folder

KLUE = Path(__file__).resolve().parents[3] / "shared" / "data" / "klue" / "klue-sts-v1.1_dev.json"
PAIRS = [
    ("한 남자가 밥을 먹는다", "한 남자가 빵을 먹는다"),
    ("두 아이가 길을 간다", "아이 둘이 길을 간다"),
    ("물", "빵"),
    ("밥", "길"),
]
# As KLUE writes them: an array over many lines, with the scores one level down.
RECORDS = [
    {
        "guid": f"klue-sts-v1_dev_{n:05}",
        "source": "airbnb-rtt",
        "sentence1": first,
        "sentence2": second,
        "labels": {"label": n + 1.4, "real-label": n + 1.42857, "binary-label": int(n > 1)},
        "annotations": {"agreement": "0:0:0:1:6", "annotators": ["17", "07"], "annotations": [5, 4]},
    }
    for n, (first, second) in enumerate(PAIRS)
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny_folder(tmp_path_factory.mktemp("모델") / "작은 모델"))


@pytest.fixture
def run(model, capsys, monkeypatch, tmp_path):
    """Runs a command with the tiny model in an empty folder; returns exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train_run, "weights_folder", lambda: tmp_path)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def run(command, *arguments, stdin=b""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        try:
            code = command.main(["--model", model, "--device", "cpu", *map(str, arguments)])
        except SystemExit as stop:
            code = stop.code
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


def refused(answer):
    code, out, err = answer
    assert (code, out, err.count("\n")) == (2, "", 1), err
    return err.partition(": ")[2].strip()


def texts_of(answer):
    code, out, err = answer
    assert code == 0, err
    return [json.loads(line)["text"] for line in out.splitlines()]


def own(file):
    return "--train", file, "-o", "out", "--overwrite", "--batch-size", 2, "--max-steps", 1


TABLES = {
    "txt": "밥\n빵",
    "csv": "id,text\n1,밥\n2,빵",
    "tsv": "id\ttext\n1\t밥\n2\t빵",
    "jsonl": '{"id": 1, "text": "밥"}\n{"id": 2, "text": "빵"}',
    "json": '[{"id": 1, "text": "밥"},\n {"id": 2, "text": "빵"}]',
    "ndjson": '{"text": "밥"}\n{"text": "빵"}',
}


@pytest.mark.parametrize("form", TABLES)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_every_form_by_file_by_standard_input_and_in_python(run, model, form, packed):
    data = (TABLES[form] + "\n\n").encode()
    data = gzip.compress(data) if packed else data
    name = f"a.{form}" + ".gz" * packed
    Path(name).write_bytes(data)
    Path("a.dat").write_bytes(data)
    said = ("--input-format", {"json": "jsonl", "ndjson": "jsonl"}.get(form, form))
    answer = run(encode, "-i", name, "-o", "-")
    assert texts_of(answer) == ["밥", "빵"]
    assert run(encode, "-i", "-", "-o", "-", *said, stdin=data)[1] == answer[1]
    assert run(encode, "-o", "-", *said, stdin=data)[1] == answer[1]
    assert run(encode, "-i", "a.dat", "-o", "-", *said)[1] == answer[1]
    vectors = np.array([json.loads(line)["embedding"] for line in answer[1].splitlines()], dtype=np.float32)
    np.testing.assert_array_equal(vectors, SentenceEncoder.from_pretrained(model, device="cpu").encode(["밥", "빵"]))
    assert refused(run(encode, "-i", "a.dat")).startswith("a.dat: what is in a .dat file is not known; rename it")


def test_a_field_of_standard_input_needs_a_form(run):
    data = "문장,n\n밥,1\n".encode()
    assert texts_of(run(encode, "-o", "-", "--text-field", "문장", "--input-format", "csv", stdin=data)) == ["밥"]
    problem = refused(run(encode, "--text-field", "문장", stdin=data))
    assert problem == "standard input: lines of text have no field '문장'; say what it is: --input-format jsonl, csv or tsv"
    assert "looks like JSON" in refused(run(encode, stdin='{"text": "밥"}\n'.encode()))
    for flag in (("--text-field", "a"), ("--input-format", "csv")):
        assert "are for files and standard input" in refused(run(encode, "밥", *flag))


@pytest.mark.parametrize(
    ("name", "step"),
    [("a.pdf", "save its text as .txt"), ("a.xlsx", "save it as CSV UTF-8"), ("a.parquet", "to_json"), ("a.docx", ".txt")],
)
def test_files_of_other_programs_are_refused_with_the_next_step(run, name, step):
    Path(name).write_bytes(b"PK\x03\x04 not read")
    for answer in (run(encode, "-i", name), run(train, *own(name), "--loss", "mnrl"), run(evaluate, "--data", name)):
        assert refused(answer).startswith(f"{name}: what is in a {Path(name).suffix} file is not known; ")
        assert step in answer[2]


@pytest.mark.parametrize(("codec", "name"), [("cp949", "cp949"), ("utf-16", "utf-16")])
def test_other_encodings_are_refused_with_the_command_that_converts(run, codec, name):
    text = "질문,답변\n" + "".join(f"{a},{b}\n" for a, b in PAIRS)
    Path("엑셀 표.csv").write_bytes(text.encode(codec))
    command = f"convert it: iconv -f {name} -t utf-8 '엑셀 표.csv' > NEW"
    field = ("--text-field", "질문")
    for answer in (run(encode, "-i", "엑셀 표.csv", *field), run(train, *own("엑셀 표.csv"), "--loss", "mnrl")):
        assert command in refused(answer)
    Path("엑셀 표.csv").write_bytes(text.encode("utf-8-sig"))  # what the conversion, or Excel's CSV UTF-8, gives
    assert texts_of(run(encode, "-i", "엑셀 표.csv", "-o", "-", *field)) == [first for first, _ in PAIRS]


def test_files_as_klue_has_them(run):
    Path("klue.json").write_text(json.dumps(RECORDS, ensure_ascii=False, indent=4), encoding="utf-8")
    lines = ["sentence1\tsentence2\tscore", *(f"{a}\t{b}\t{n + 1.4}" for n, (a, b) in enumerate(PAIRS))]
    Path("same.tsv").write_text("\n".join(lines), encoding="utf-8")
    assert texts_of(run(encode, "-i", "klue.json", "-o", "-", "--text-field", "sentence2")) == [b for _, b in PAIRS]
    code, numbers, err = run(evaluate, "--data", "klue.json", "--json")
    assert (code, numbers) == (0, run(evaluate, "--data", "same.tsv", "--json")[1])
    understood = "anchor = sentence1, positive = sentence2, label = labels.label / 5; left out: guid, source, "
    assert f"klue.json: {understood}" in err
    weights = []
    for name in ("klue.json", "same.tsv"):
        code, _, err = run(train, *own(name), "--loss", "cosine", "--lr", 1e-3, "--warmup-steps", 0, "--dev", "klue.json")
        assert code == 0, err
        weights.append(Path("out/model.safetensors").read_bytes())
    assert weights[0] == weights[1]


@pytest.mark.skipif(not KLUE.exists(), reason="no KLUE beside the checkout")
def test_klue_itself(run):
    code, out, _ = run(encode, "-i", KLUE, "--text-field", "sentence1", "-o", "-")
    assert (code, out.count("\n")) == (0, 519)
    assert refused(run(encode, "-i", KLUE)).startswith(
        f"{KLUE}: record 1: no field 'text'; choose with --text-field one of: guid, "
    )


@pytest.mark.parametrize("name", ["", "id", "guid", "Unnamed: 0"])
def test_a_column_of_numbers_is_no_anchor(run, name):
    rows = [f"{n},{a},{b}" for n, (a, b) in enumerate(PAIRS)]
    Path("p.csv").write_text("\n".join([f"{name},question,answer", *rows]), encoding="utf-8")
    code, _, err = run(train, *own("p.csv"), "--loss", "mnrl")
    lines = err.splitlines()
    assert code == 0
    assert lines[0] == f"train.py: p.csv: anchor = question, positive = answer; left out: {name or '(no name)'}"
    card = Path("out/README.md").read_text(encoding="utf-8")
    assert PAIRS[0][0] in card and "sentence_2" not in card
    Path("p.csv").write_text("\n".join(["질문번호,question,answer", *rows]), encoding="utf-8")
    problem = "p.csv: the column '질문번호' holds numbers, no texts; leave it out, or call it score or label"
    assert refused(run(train, *own("p.csv"), "--loss", "mnrl")) == problem


def test_any_number_of_negatives(run):
    rows = [{"neg_2": "새", "negative": f"소 {n}", "Answer": b, "neg_1": "개", "Query": a} for n, (a, b) in enumerate(PAIRS)]
    for n, row in enumerate(rows):
        row["neg_1"], row["neg_2"] = f"개 {n}", f"새 {n}"
    Path("p.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    code, _, err = run(train, *own("p.jsonl"), "--loss", "mnrl")
    assert code == 0
    understood = "anchor = Query, positive = Answer, negative = negative, negative = neg_1, negative = neg_2"
    assert err.splitlines()[0] == f"train.py: p.jsonl: {understood}"
    assert "sentence_4" in Path("out/README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "한 남자가 밥을 먹는다\t빵을 먹는다\n물\t술\n",
            "p.tsv:1: '한 남자가 밥을 먹는다' names no column; the first line must",
        ),
        (
            "a\tb\tscore\n밥\t빵\t0.9\n물\t술\t1\n",
            "p.tsv: no 'score' is above 1, but a score goes from 0 to 5; call the column label",
        ),
        ('a\tb\tlabel\n"그는 ""네""라고"\t빵\t1\n', 'p.tsv:2: a value is quoted, with "" for "; a .tsv knows no quotes: write'),
        ('a\tb\tlabel\n"두\n줄"\t빵\t1\n', "p.tsv:2: 1 columns, expected 3; a .tsv knows no quotes: write"),
        (
            "a\tb\tlabel\n밥\t빵\t4\n",
            "p.tsv:2: '4' is not between -1 and 1; call the column score if it goes",
        ),
        (
            "premise\thypothesis\tgold_label\n밥\t빵\tneutral\n",
            "p.tsv: the column 'gold_label' is not a number but a word; train on",
        ),
    ],
)
def test_what_would_be_misread_is_refused(run, text, problem):
    Path("p.tsv").write_text(text, encoding="utf-8")
    assert refused(run(train, *own("p.tsv"), "--loss", "cosine")).startswith(problem)


def test_labels_that_are_texts_are_numbers_in_every_reader(run):
    rows = [{"a": a, "b": b, "score": str(n + 1.5)} for n, (a, b) in enumerate(PAIRS)]
    Path("p.json").write_text(json.dumps(rows), encoding="utf-8")
    Path("n.json").write_text(json.dumps([{**row, "score": float(row["score"])} for row in rows]), encoding="utf-8")
    assert run(evaluate, "--data", "p.json")[1] == run(evaluate, "--data", "n.json")[1]
    code, _, err = run(train, *own("p.json"), "--loss", "cosine", "--dev", "p.json", "--test", "n.json")
    assert code == 0
    understood = "anchor = a, positive = b, label = score / 5"
    measured = f"{understood}; measured: the order of the scores"
    lines = [("p", understood), ("p", measured), ("n", measured)]
    assert err.splitlines()[:3] == [f"train.py: {name}.json: {line}" for name, line in lines]
