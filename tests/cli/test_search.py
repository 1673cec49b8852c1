"""Proves that encode.py answers from saved vectors what it answers from texts, and refuses vectors of something else."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from minisbert import SentenceEncoder
from minisbert.cli import encode, grids, search
from tests.tiny import tiny_folder

TEXTS = ["밥을 먹는다.", "날씨가 춥다.", "밥을 먹는다.", "고양이는 물을 마신다.", "한 남자가 빵을 먹는다.", "날씨가 춥다."]


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs encode.py on a.txt with a tiny model: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    tiny_folder(tmp_path / "모델")
    Path("a.txt").write_text("\n".join(TEXTS), encoding="utf-8")

    def run(*arguments):
        code = encode.main(["-m", "모델", "--device", "cpu", "--quiet", *map(str, arguments)])
        return code, *capsys.readouterr()

    return run


def rows_of(out: str) -> list[list[str]]:
    return [line.split("\t") for line in out.splitlines()]


def test_a_query_prints_scores_rows_and_texts(run):
    code, out, _ = run("-i", "a.txt", "--query", "밥을 먹는다.", "--top-k", 3)
    model = SentenceEncoder.from_pretrained("모델", device="cpu")
    scores = model.similarity(model.encode(["밥을 먹는다."]), model.encode(TEXTS))[0].numpy()
    assert code == 0
    order = np.lexsort((np.arange(len(TEXTS)), -scores.round(5)))[:3]
    assert rows_of(out) == [[f"{scores[row]:.4f}", str(row), TEXTS[row]] for row in order]
    assert [row for _, row, _ in rows_of(out)][:2] == ["0", "2"]  # equal texts, the earlier one first


@pytest.mark.parametrize("form", ["npy", "npz", "safetensors", "jsonl"])
def test_saved_vectors_give_the_same_answers(run, form):
    assert run("-i", "a.txt", "-o", f"v.{form}")[0] == 0
    Path("q.txt").write_text("밥\n날씨", encoding="utf-8")
    for question in (["--query", "밥", "--query", "날씨"], ["--queries", "q.txt"], ["--duplicates"], ["--groups", "0.8"]):
        computed = run("-i", "a.txt", *question)
        assert computed[0] == 0
        assert computed[1]
        assert run("-i", "a.txt", *question, "--vectors", f"v.{form}") == computed


def test_vectors_are_not_computed_again(run, monkeypatch):
    run("-i", "a.txt", "-o", "v.npy")
    encoded = []
    tokenize = SentenceEncoder.encode
    monkeypatch.setattr(SentenceEncoder, "encode", lambda self, texts, **o: encoded.extend(texts) or tokenize(self, texts, **o))
    assert run("-i", "a.txt", "--query", "밥", "--vectors", "v.npy")[0] == 0
    assert encoded == ["밥"]


def test_several_queries_stand_before_their_answers(run):
    out = rows_of(run("-i", "a.txt", "--query", "밥", "--query", "날씨", "--top-k", 2)[1])
    assert [row[0] for row in out] == ["밥", "밥", "날씨", "날씨"]


def test_duplicates_and_groups(run):
    pairs = rows_of(run("-i", "a.txt", "--duplicates", "1")[1])
    assert pairs == [["1.0000", "0", "2", TEXTS[0], TEXTS[2]], ["1.0000", "1", "5", TEXTS[1], TEXTS[5]]]
    groups = rows_of(run("-i", "a.txt", "--groups", "1")[1])
    assert groups == [["0", "0", TEXTS[0]], ["0", "2", TEXTS[2]], ["1", "1", TEXTS[1]], ["1", "5", TEXTS[5]]]


def test_json_lines(run):
    out = run("-i", "a.txt", "--duplicates", "1", "--json")[1]
    first = {"score": 1.0, "row": 0, "other_row": 2, "text": TEXTS[0], "other_text": TEXTS[2]}
    assert json.loads(out.splitlines()[0]) == first


def test_what_made_the_vectors_stands_beside_them(run):
    run("-i", "a.txt", "-o", "v.npy", "--normalize", "--prompt", "글: ")
    record = json.loads(Path("v.npy.json").read_text(encoding="utf-8"))
    assert (record["model"], record["rows"], record["normalize"], record["prompt"]) == ("모델", 6, True, "글: ")
    assert record["weights"] == SentenceEncoder.from_pretrained("모델", device="cpu").fingerprint()
    assert record["versions"]["torch"] == torch.__version__


@pytest.mark.parametrize(
    ("saved_with", "asked_with", "problem"),
    [
        (["--normalize"], [], "normalize True, not False"),
        ([], ["--max-length", "5"], "max_length"),
        (["--prompt", "글: "], [], "prompt '글: ', not ''"),
        (["--truncate-dim", "3"], [], "truncate_dim 3, not None"),
        (["--dtype", "bfloat16"], [], "dtype 'bfloat16', not 'float32'"),
        (["--nfc"], [], "nfc True, not False"),
    ],
)
def test_vectors_of_other_options_are_refused(run, saved_with, asked_with, problem):
    run("-i", "a.txt", "-o", "v.npy", *saved_with)
    code, out, err = run("-i", "a.txt", "--query", "밥", "--vectors", "v.npy", *asked_with)
    assert (code, out) == (2, "")
    assert f"v.npy: made with {problem}" in err
    assert err.count("\n") == 1


def test_vectors_of_another_model_are_refused(run, tmp_path):
    run("-i", "a.txt", "-o", "v.npy")
    tiny_folder(tmp_path / "다른 모델", "roberta")
    code, _, err = run("-i", "a.txt", "--query", "밥", "--vectors", "v.npy", "-m", "다른 모델")
    assert code == 2
    assert "v.npy: made with another model" in err


@pytest.mark.parametrize("question", ["--query=밥", "--duplicates", "--groups"])
def test_vectors_of_other_texts_are_refused(run, question):
    run("-i", "a.txt", "-o", "v.npy")
    for texts, problem in (
        ([*TEXTS, "밥"], "6 vectors, but the input has more texts"),
        (TEXTS[:-1], "6 vectors, but the input has 5 texts"),
        ([*TEXTS[:-1], "밥"], "made of other texts than those of the input"),
    ):
        Path("a.txt").write_text("\n".join(texts), encoding="utf-8")
        code, out, err = run("-i", "a.txt", question, "--vectors", "v.npy")
        assert (code, out) == (2, "")
        assert problem in err


def test_vectors_of_unknown_origin_are_taken_with_a_note(run):
    run("-i", "a.txt", "-o", "v.npy")
    Path("v.npy.json").unlink()
    code, out, err = run("-i", "a.txt", "--query", "밥", "--vectors", "v.npy")
    assert code == 0
    assert out
    assert err == "encode.py: note: there is no v.npy.json: whether model, options and texts fit to the vectors is not known\n"


def test_new_vectors_lose_the_record_of_the_old_ones(run):
    run("-i", "a.txt", "-o", "v.npy", "--normalize")
    run("-i", "a.txt", "-o", "v.npy", "--overwrite")
    assert json.loads(Path("v.npy.json").read_text())["normalize"] is False


def test_damaged_vectors_are_one_line(run):
    Path("v.npy").write_bytes(b"\x93NUMPY")
    Path("v.npz").write_bytes(b"PK")
    Path("v.jsonl").write_text("[1]\n")
    np.save("w.npy", np.zeros(3))
    for name in ("v.npy", "v.npz", "v.jsonl", "w.npy", "a.txt"):
        code, out, err = run("-i", "a.txt", "--query", "밥", "--vectors", name)
        assert (code, out) == (2, "")
        assert f"{name}: " in err
        assert err.splitlines()[-1] == err.splitlines()[0]


def test_a_row_that_is_not_finite_is_named(run):
    run("-i", "a.txt", "-o", "v.npy")
    vectors = np.load("v.npy")
    vectors[4, 2] = np.nan
    np.save("v.npy", vectors)
    code, _, err = run("-i", "a.txt", "--query", "밥", "--vectors", "v.npy")
    assert code == 6
    assert "row 4: " in err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--duplicates", "1.5"],
        ["--groups", "nan"],
        ["--query", "밥", "--duplicates"],
        ["--groups", "--similarity"],
        ["--vectors", "v.npy"],
        ["--json"],
        ["--query", "밥", "--top-k", "0"],
    ],
)
def test_impossible_questions_are_refused(run, arguments):
    code, out, err = run("-i", "a.txt", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)


def test_no_texts_have_no_answers_and_no_queries_are_refused(run):
    Path("empty.txt").write_text("")
    for question in (["--query", "밥"], ["--duplicates"], ["--groups"]):
        assert run("-i", "empty.txt", *question) == (0, "", "")
    code, _, err = run("-i", "a.txt", "--queries", "empty.txt")
    assert code == 2
    assert "empty.txt: no queries in it" in err
    assert len(rows_of(run("-i", "a.txt", "--query", "밥", "--top-k", 10**9)[1])) == len(TEXTS)


def test_an_empty_query_is_refused(run):
    Path("q.txt").write_text("밥\n \n물", encoding="utf-8")
    assert run("-i", "a.txt", "--query", "") == (2, "", "encode.py: --query is empty; say what to look for\n")
    assert run("-i", "a.txt", "--queries", "q.txt")[::2] == (2, "encode.py: q.txt: query 2 is empty; say what to look for\n")


def test_a_hit_has_the_other_columns_of_its_row(run):
    rows = "".join(f"{9 - row}\t{'가나'[row % 2]}\t{text}\n" for row, text in enumerate(TEXTS))
    Path("a.tsv").write_text("번호\t종류\ttext\n" + rows, encoding="utf-8")
    for _, row, text, *others in rows_of(run("-i", "a.tsv", "--query", "밥")[1]):
        assert (text, others) == (TEXTS[int(row)], [str(9 - int(row)), "가나"[int(row) % 2]])
    line = json.loads(run("-i", "a.tsv", "--query", "밥", "--top-k", 1, "--json")[1])
    assert line["columns"] == {"번호": str(9 - line["row"]), "종류": "가나"[line["row"] % 2]}


@pytest.mark.parametrize("form", ["npy", "npz", "safetensors"])
@pytest.mark.parametrize(("precision", "error"), [("float16", 1e-3), ("int8", 1e-2)])
def test_shorter_numbers_give_nearly_the_same_scores(run, form, precision, error):
    run("-i", "a.txt", "-o", f"v.{form}", "--precision", precision)
    exact, short = (
        {row: float(score) for score, row, _ in rows_of(run("-i", "a.txt", "--query", "밥", "--top-k", 6, *more)[1])}
        for more in ([], ["--vectors", f"v.{form}"])
    )
    assert exact.keys() == short.keys()
    assert max(abs(exact[row] - short[row]) for row in exact) < error
    assert run("-i", "a.txt", "--groups", "0.99", "--vectors", f"v.{form}")[0] == 0
    assert json.loads(Path(f"v.{form}.json").read_text(encoding="utf-8"))["precision"] == precision
    for output in ([], ["-o", "v.jsonl"]):
        assert run("-i", "a.txt", "--precision", precision, *output)[0] == 2


def test_many_equal_texts_have_few_pairs_and_one_group(run):
    Path("a.txt").write_text("밥을 먹는다\n" * 300, encoding="utf-8")
    code, out, err = run("-i", "a.txt", "--duplicates")
    assert code == 0
    assert 300 < out.count("\n") <= 300 * search.PAIRS_OF_A_TEXT
    assert "not all pairs are printed" in err
    assert run("-i", "a.txt", "--groups")[1].count("\n") == 300


def test_an_interrupted_search_is_one_line(run, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(search, "community_detection", interrupted)
    assert run("-i", "a.txt", "--groups") == (130, "", "encode.py: interrupted\n")


def test_a_terminal_gets_lines_of_its_width(run, monkeypatch):
    monkeypatch.setattr("_pytest.capture.CaptureIO.isatty", lambda self: True)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("NO_COLOR", "1")
    for asked in (["--query", "밥", "--query", "물"], ["--duplicates", "-1"], ["--groups", "-1"]):
        code, out, _ = run("-i", "a.txt", *asked)
        assert code == 0
        assert out and all(grids.columns(line) <= 40 for line in out.splitlines())
