"""Proves that `minisbert mine` writes pairs with hard negatives that train.py reads, and refuses what it cannot do."""

import json
from pathlib import Path

import pytest

from minisbert.cli import mine
from minisbert.training.examples import read_examples
from tests.tiny import SENTENCES, tiny_folder


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Mines three pairs and a corpus of nine texts with a tiny model; returns exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    tiny_folder(tmp_path / "모델")
    pairs = [{"question": first, "answer": second} for first, second in zip(SENTENCES[:3], SENTENCES[3:], strict=True)]
    Path("pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)), encoding="utf-8")
    Path("corpus.txt").write_text("\n".join([*SENTENCES, "물", "길", "", "여자"]), encoding="utf-8")

    def run(*arguments):
        code = mine.main(["--pairs", "pairs.jsonl", "-m", "모델", "--device", "cpu", "-o", "mined.jsonl", *map(str, arguments)])
        return code, *capsys.readouterr()

    return run


def test_every_row_has_a_pair_and_other_texts(run):
    code, out, err = run("--corpus", "corpus.txt", "--negatives", 2, "--margin", 1)
    assert (code, out) == (0, "")
    examples = read_examples(Path("mined.jsonl"))
    assert f"{len(examples)} of 3 pairs have 2 hard negatives" in err
    assert examples
    for anchor, positive, *negatives in (example.texts for example in examples):
        assert SENTENCES.index(positive) == SENTENCES.index(anchor) + 3
        assert len({anchor, positive, *negatives}) == 4


def test_the_positives_are_the_corpus_if_no_other_is_given(run):
    assert run("--margin", 1)[0] == 0
    examples = read_examples(Path("mined.jsonl"))
    assert examples and all(example.texts[2] in SENTENCES[3:] for example in examples)


def test_an_output_that_exists_is_kept(run):
    Path("mined.jsonl").write_text("old", encoding="utf-8")
    code, _, err = run()
    assert code == 2
    assert "--overwrite" in err
    assert Path("mined.jsonl").read_text(encoding="utf-8") == "old"
    assert run("--overwrite", "--margin", 1)[0] == 0


def test_without_any_hard_negative_nothing_is_written(run):
    code, _, err = run("--negatives", 9)
    assert code == 2
    assert "no pair has 9 texts that are near and yet far enough; lower --negatives" in err
    assert not Path("mined.jsonl").exists()


def test_rows_that_do_not_belong_together_are_no_pairs(run):
    Path("pairs.jsonl").write_text('{"a": "밥", "b": "빵", "label": 1}\n{"a": "물", "b": "길", "label": 0}', encoding="utf-8")
    code, _, err = run()
    assert code == 2
    assert "pairs.jsonl: not every score or label says that the two texts belong together" in err


def test_nothing_that_is_there_is_thrown_away(run):
    Path("pairs.jsonl").write_text('{"a": "밥", "b": "빵", "memo": "길"}', encoding="utf-8")
    code, _, err = run()
    assert code == 2
    assert "pairs.jsonl: the pairs have negatives already; leave out all columns but anchor and positive" in err
    code, _, err = run("-o", "pairs.jsonl", "--overwrite")
    assert (code, "pairs.jsonl: is an input too" in err) == (2, True)
    assert "memo" in Path("pairs.jsonl").read_text(encoding="utf-8")


def test_a_corpus_without_texts_is_named(run):
    Path("empty.txt").write_text("\n \n", encoding="utf-8")
    code, _, err = run("--corpus", "empty.txt")
    assert (code, "empty.txt: no texts in it" in err) == (2, True)


@pytest.mark.parametrize("arguments", ["--margin 2", "--negatives 0", "--text-field a", "-o a.tsv", "--pairs none.jsonl"])
def test_what_is_impossible_is_one_line(run, arguments):
    code, out, err = run(*arguments.split())
    assert code == (5 if "none" in arguments else 2)
    assert out == ""
    assert err.count("\n") == 1
    assert not Path("mined.jsonl").exists()
