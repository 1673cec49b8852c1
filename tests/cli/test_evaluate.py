"""Proves that the command that measures a model prints eight numbers, and that every failure is one line."""

import json
import os
import signal
import subprocess
import sys
import unicodedata

import pytest
import torch

from minisbert import SentenceEncoder
from minisbert.cli import evaluate
from minisbert.evaluation import EmbeddingSimilarityEvaluator
from tests.tiny import SENTENCES, tiny_folder

HEADER = "genre\tfilename\tyear\tid\tscore\tsentence1\tsentence2\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny_folder(tmp_path_factory.mktemp("모델") / "작은 모델"))


@pytest.fixture
def run(model, capsys, tmp_path):
    """Runs the command on a KorSTS file of these lines; returns exit code, standard output, standard error."""
    handler = signal.getsignal(signal.SIGTERM)

    def run(lines, *arguments):
        data = tmp_path / "sts.tsv"
        data.write_text(lines, encoding="utf-8")
        code = evaluate.main(["--model", model, "--data", str(data), "--device", "cpu", *arguments])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    yield run
    signal.signal(signal.SIGTERM, handler)


def pairs(scores):
    return HEADER + "".join(f"a\tb\tc\t{row}\t{score}\t{SENTENCES[row]}\t밥\n" for row, score in enumerate(scores))


def test_the_command_prints_eight_numbers(run):
    lines = pairs([0.0, 1.5, 2.2, 3.0, 4.0, 5.0])
    code, out, err = run(lines)
    understood = "anchor = sentence1, positive = sentence2, label = score / 5; left out: genre, filename, year, id; "
    understood += "measured: the order of the scores\n"
    assert (code, err.partition("sts.tsv: ")[2]) == (0, understood)
    table = [line.split() for line in out.splitlines()]
    assert table[0] == ["Pearson", "Spearman"]
    assert [row[0] for row in table[1:]] == ["cosine", "euclidean", "manhattan", "dot"]
    code, out, err = run(lines, "--json")
    numbers = json.loads(out)
    assert (code, err.partition("sts.tsv: ")[2], len(numbers)) == (0, understood, 8)
    for function, *shown in table[1:]:
        assert shown == [f"{100 * numbers[f'{correlation}_{function}']:.2f}" for correlation in ("pearson", "spearman")]


def test_search_among_pairs_is_measured(run):
    lines = "질문\t답\n" + "".join(f"{SENTENCES[row]}\t{SENTENCES[row]}\n" for row in range(6))
    code, out, err = run(lines)
    assert (code, err.partition("; ")[2]) == (0, "measured: search\n")
    table = {name: number for name, number in (line.split() for line in out.splitlines())}
    assert table["cosine_ndcg@10"] == table["cosine_mrr@10"] == "100.00", "each text finds itself"
    assert table["cosine_precision@10"] == "10.00"
    numbers = json.loads(run(lines, "--json")[1])
    assert {name: f"{100 * number:.2f}" for name, number in numbers.items()} == table


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device that Linux has")
def test_numbers_that_cannot_be_printed_are_one_line(model, tmp_path):
    (tmp_path / "sts.tsv").write_text(pairs([0.0, 1.5]), encoding="utf-8")
    command = [sys.executable, "-m", "minisbert.evaluation", "-m", model, "--data", str(tmp_path / "sts.tsv")]
    environment = {**os.environ, "PYTHONUNBUFFERED": ""}  # the numbers then fail to leave the buffer, not to enter it
    with open("/dev/full", "wb") as full:
        done = subprocess.run([*command, "--device", "cpu"], stdout=full, stderr=subprocess.PIPE, env=environment, check=False)
    assert done.returncode == 5
    assert done.stderr == b"evaluation: standard output: No space left on device\n"


def test_numbers_that_do_not_exist_are_null_in_json(run):
    numbers = json.loads(run(pairs([3.0] * 6), "--json")[1])
    assert set(numbers.values()) == {None}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (pairs([1.0, "drei", 2.0]), "sts.tsv:3: "),
        (pairs([1.0, 2.0, 7.0]), "sts.tsv:4: "),
        (pairs([1.0, "nan"]), "sts.tsv:3: "),
        (pairs([1.0, 2.0]) + "a\tb\n", "sts.tsv:4: "),
        ("a\tb\n", "sts.tsv: no examples in it"),
        ("", "sts.tsv: no examples in it"),
        (pairs([1.0]), "sts.tsv: expected at least two pairs, each with a score; found 1 first sentences"),
    ],
)
def test_bad_files_are_named_with_the_line(run, lines, message):
    code, out, err = run(lines)
    assert (code, out) == (2, "")
    assert err.startswith("evaluation: ")
    assert message in err
    assert err.count("\n") == 1


def test_an_interruption_is_one_line(run, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluate, "read_evaluator", interrupted)
    assert run(pairs([1.0, 2.0])) == (130, "", "evaluation: interrupted\n")


def test_decomposed_hangul_is_told_in_one_line(run):
    code, _, err = run(unicodedata.normalize("NFD", pairs([1.0, 2.0, 3.0])))
    assert code == 0
    assert err.startswith("evaluation: note: ")
    assert err.count("\n") == 2


def test_other_failures_have_their_exit_codes(run, tmp_path):
    lines = pairs([1.0, 2.0])
    code, _, err = run(lines, "--data", str(tmp_path / "없음.tsv"))
    assert (code, err) == (5, f"evaluation: {tmp_path / '없음.tsv'}: No such file or directory\n")
    assert run(lines, "--model", str(tmp_path))[0] == 3
    assert run(lines, "--device", "nonsense")[0] == 2
    with pytest.raises(SystemExit, match="2"):
        run(lines, "--nonsense")


def test_another_dtype(run, model):
    lines = pairs([0.0, 1.5, 2.2, 3.0, 4.0, 5.0])
    found = json.loads(run(lines, "--json", "--dtype", "bfloat16")[1])
    rounded = SentenceEncoder.from_pretrained(model, device="cpu", dtype=torch.bfloat16)
    expected = EmbeddingSimilarityEvaluator(SENTENCES, ["밥"] * 6, [0.0, 1.5, 2.2, 3.0, 4.0, 5.0])(rounded)
    assert found == pytest.approx(expected)
    assert found != json.loads(run(lines, "--json")[1])
