"""Proves that train.py keeps its contract: every flag does what it says, and a failure is one line with its exit code.

All calls are of `main` in this process, on tiny models and a small copy of the layout of KorNLI and KorSTS.
"""

import csv
import json
import os
import signal
import sys
import unicodedata
from types import SimpleNamespace

import pytest
import torch

from minisbert import SentenceEncoder
from minisbert.cli import train, train_run
from minisbert.training import corpora
from minisbert.training import step as training_step
from minisbert.training.recipes import RECIPES
from tests.tiny import SENTENCES, WORDS, tiny_folder

STS_HEADER = "genre\tfilename\tyear\tid\tscore\tsentence1\tsentence2"
SUBJECTS, OBJECTS = WORDS[2:6], WORDS[6:8] + WORDS[18:20]


def sts_rows(count):
    return [f"news\ta\t2024\t{n}\t{n % 6}\t{SENTENCES[n % 6]} {n}\t{SENTENCES[(n + n // 6) % 6]}" for n in range(count)]


def nli_rows():
    for subject in SUBJECTS:
        for thing in OBJECTS:
            premise = f"한 {subject}가 {thing}을 먹는다"
            yield f"{premise}\t{subject}가 {thing}을 먹고 있다\tentailment"
            yield f"{premise}\t두 {subject}는 {thing}에서 달린다\tcontradiction"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a base model, KorNLI and KorSTS in small, and pairs of one's own."""
    place = tmp_path_factory.mktemp("학습")
    tiny_folder(place / "base")
    data = place / "data" / "kor-nlu-datasets"
    files = {
        data / "KorSTS" / "sts-train.tsv": [STS_HEADER, *sts_rows(20)],
        data / "KorSTS" / "sts-dev.tsv": [STS_HEADER, *sts_rows(12)],
        data / "KorSTS" / "sts-test.tsv": [STS_HEADER, *sts_rows(18)],
        **{data / file.path: ["sentence1\tsentence2\tgold_label", *nli_rows()] for file in corpora.NLI_TRAIN},
        place / "pairs.tsv": ["물음\t답", *(f"{word}\t{word}을 먹는다 {n}" for n, word in enumerate(WORDS[:12]))],
        place / "scored.jsonl": [json.dumps({"a": a, "b": f"{a} {a}", "label": 0.5}) for a in SENTENCES],
    }
    for path, lines in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return place


@pytest.fixture
def run(place, tmp_path, monkeypatch, capsys):
    """Runs train.py in an empty folder; returns exit code, standard output and the lines of standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train_run, "weights_folder", lambda: tmp_path)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def run(*arguments):
        try:
            code = train.main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = stop.code
        printed = capsys.readouterr()
        return code, printed.out, printed.err.splitlines()

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def recipe(run, place):
    """Runs a published recipe on the small data."""

    def recipe(name, *arguments, output="out"):
        sizes = {"nli": ("--nli-batch-size", 8), "sts": ("--sts-batch-size", 4)}
        numbers = [each for task in RECIPES[name].tasks for each in sizes[task.data]]
        common = ["--data", place / "data", "-m", place / "base", "--device", "cpu", "-o", output, *numbers]
        return run("--recipe", name, *common, *arguments)

    return recipe


@pytest.fixture
def own(run, place):
    """Runs on the pairs of one's own."""

    def own(*arguments, file="pairs.tsv", loss="mnrl"):
        common = ["--train", place / file, "-m", place / "base", "--device", "cpu", "-o", "out", "--batch-size", 4]
        return run(*common, "--loss", loss, *arguments)

    return own


@pytest.fixture
def fitted(monkeypatch):
    """Notes what `fit` is called with, and does not train."""
    calls = []

    def fit(model, objectives, plan, output, evaluator, resume, on_step, should_stop):
        calls.append(SimpleNamespace(**locals()))
        model.save_pretrained(output)

    monkeypatch.setattr(train_run, "fit", fit)
    return calls


@pytest.fixture
def killed_at_its_end(monkeypatch):
    """Runs train.py up to the last step; the model card, training.json and the tidying up do not come."""

    def killed_at_its_end(run, *arguments):
        with monkeypatch.context() as patches:
            patches.setattr(train_run, "finish", lambda *_: None)
            assert run(*arguments)[0] == 0

    return killed_at_its_end


def record(folder="out"):
    with open(f"{folder}/training.json", encoding="utf-8") as file:
        return json.load(file)


def test_list_recipes(run):
    code, out, err = run("--list-recipes")
    assert (code, err) == (0, [])
    lines = out.splitlines()
    assert [line.split()[0] for line in lines] == ["recipe", *RECIPES]
    assert "kf-deberta-multitask" in out
    assert "nli 128 mnrl, sts 8 cosine" in out
    assert "86.25" in out


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device that Linux has")
def test_a_list_that_cannot_be_printed_is_one_line(run, monkeypatch):
    with open("/dev/full", "w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        code, _, err = run("--list-recipes")
    assert (code, err) == (5, ["train.py: standard output: No space left on device"])


def test_a_recipe_from_data_to_model_card(recipe, place):
    code, out, err = recipe("ko-sroberta-multitask", "--epochs", 2, "--lr", "1e-3", "--warmup-steps", 1, "--seed", 5)
    assert (code, out) == (0, "")
    before, after = "before training, sts-test", "after training, sts-test"
    assert [line.split(": ")[1] for line in err[:4]] == [before, "step 4", "step 8", after]
    for line, scores in ((err[0], record()["scores_before"]), (err[3], record()["scores"])):
        pearson, spearman = (f"{100 * scores[f'sts-test_{name}_cosine']:.2f}" for name in ("pearson", "spearman"))
        assert line.endswith(f", sts-test: cosine pearson {pearson}, cosine spearman {spearman}")
    assert err[4].startswith("train.py: done in ")
    written = record()
    assert written["overridden"] == {
        "base": "base",
        "tasks": [
            {"data": "nli", "loss": "mnrl", "batch_size": 8},
            {"data": "sts", "loss": "cosine", "batch_size": 4},
        ],
        "epochs": 2,
        "warmup_steps": 1,
        "seed": 5,
        "learning_rate": 1e-3,
    }
    assert set(written["data"]) == {"snli_1.0_train.ko.tsv", "multinli.train.ko.tsv", "sts-train.tsv"}
    assert set(written["scores"]) == {
        f"sts-test_{correlation}_{function}"
        for correlation in ("pearson", "spearman")
        for function in ("cosine", "euclidean", "manhattan", "dot")
    }
    assert sorted(set(os.listdir("out")) - {"tensorboard"}) == sorted(
        "1_Pooling README.md config.json config_sentence_transformers.json eval metrics.jsonl model.safetensors "
        "modules.json sentence_bert_config.json special_tokens_map.json tokenizer.json tokenizer_config.json training.json "
        "vocab.txt".split()
    )
    assert SentenceEncoder.from_pretrained("out", device="cpu").max_seq_length == 40
    with open("out/metrics.jsonl", encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 4, 5, 6, 7, 8, 8]
    assert list(lines[0]["losses"]) == ["nli", "sts"]


@pytest.mark.parametrize("name", [name for name in RECIPES if RECIPES[name].base and name != "pet-questions"])
def test_recipes_reach_the_loop(recipe, fitted, name):
    dims = ("--matryoshka-dims", "24,8") if name.endswith("-mrl") else ()
    code, _, err = recipe(name, *dims)
    assert code == 0, err
    (call,) = fitted
    row = RECIPES[name]
    assert call.plan == row.plan
    assert [objective.name for objective in call.objectives] == [task.data for task in row.tasks]
    assert (call.plan.learning_rate, call.plan.weight_decay, call.plan.max_grad_norm) == (2e-5, 0.01, 1.0)
    assert (call.plan.evaluation_steps, call.plan.checkpoint_steps) == (1000, 500)
    assert hasattr(call.objectives[0].loss, "dims") == bool(dims)
    schedule = call.plan.schedule([len(objective.batches) for objective in call.objectives])
    tenth = -(-schedule.total_steps // 10)
    assert schedule.warmup_steps == (row.plan.warmup_steps or tenth)
    assert call.evaluator.name == "sts-dev"
    assert len(call.evaluator.scores) == 12


def test_warm_up_is_rounded_up(own, fitted):
    # 719 batches of 8 for 5 epochs warm up for 360 steps, as the published models did; here 0.1 of 3 steps is 1.
    own("--warmup-ratio", 0.1)
    own("--overwrite", "--warmup-ratio", 0.7)
    own("--overwrite", "--warmup-ratio", 0)
    own("--overwrite", "--warmup-steps", 2)
    assert [call.plan.schedule([3]).warmup_steps for call in fitted] == [1, 3, 0, 2]


def test_flags_reach_the_loop(own, fitted):
    flags = "--epochs 3 --lr 0.01 --weight-decay 0.2 --max-grad-norm 0.5 --max-steps 2 --seed 9"
    own(*f"{flags} --checkpoint-steps 4 --dtype bfloat16 --recompute --max-length 20".split())
    (call,) = fitted
    expected = {
        "epochs": 3,
        "learning_rate": 0.01,
        "weight_decay": 0.2,
        "max_grad_norm": 0.5,
        "max_steps": 2,
        "seed": 9,
        "checkpoint_steps": 4,
        "autocast": "bfloat16",
        "recompute_activations": True,
    }
    assert {name: getattr(call.plan, name) for name in expected} == expected
    assert (call.resume, call.evaluator) == (False, None)
    assert call.model.max_seq_length == 20
    assert call.model.device.type == "cpu"
    assert call.output.name == "out"


def test_own_data_keep_the_length_of_the_base(own, fitted, place, tmp_path):
    model = SentenceEncoder.from_pretrained(place / "base", device="cpu", max_seq_length=16)
    model.save_pretrained(tmp_path / "short")
    own("-m", tmp_path / "short")
    assert fitted[0].model.max_seq_length == 16


def test_own_pairs_with_dev_and_test(own, place):
    sts = place / "data" / "kor-nlu-datasets" / "KorSTS"
    code, _, err = own("--dev", sts / "sts-dev.tsv", "--test", sts / "sts-test.tsv", "--epochs", 2)
    assert code == 0
    korsts = "anchor = sentence1, positive = sentence2, label = score / 5; left out: genre, filename, year, id"
    korsts += "; measured: the order of the scores"
    assert [line.split(": ", 2)[2] for line in err[:3]] == ["anchor = 물음, positive = 답", korsts, korsts]
    before, after = "before training, sts-test", "after training, sts-test"
    assert [line.split(": ")[1] for line in err[3:7]] == [before, "step 3", "step 6", after]
    assert os.path.exists("out/eval/similarity_evaluation_sts-dev_results.csv")
    assert record()["overridden"] == {}
    assert record()["flags"]["loss"] == "mnrl"


def test_pairs_pick_the_best_model_by_search(own, place):
    code, _, err = own("--dev", place / "pairs.tsv", "--epochs", 2, "--lr", "1e-3")
    assert (code, err[1].partition("; ")[2]) == (0, "measured: search")
    assert [line.split(": ")[1] for line in err[2:6]] == ["before training, pairs", "step 3", "step 6", "after training, pairs"]
    with open("out/eval/Information-Retrieval_evaluation_pairs_results.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    best = max(rows, key=lambda row: float(row["cosine_ndcg@10"]))
    scores, before = record()["scores"], record()["scores_before"]
    assert float(best["cosine_mrr@10"]) == pytest.approx(scores["pairs_cosine_mrr@10"], abs=1e-6)
    with open("out/README.md", encoding="utf-8") as file:
        card = file.read()
    assert "#### Information Retrieval\n" in card
    shown = (f"{numbers['pairs_cosine_mrr@10']:.4f}" for numbers in (before, scores))
    assert "| pairs_cosine_mrr@10 | {} | {} |".format(*shown) in card
    assert "task:\n      type: information-retrieval\n" in card


def test_the_model_that_comes_along_is_the_default(run, place, fitted):
    command = ["--train", place / "pairs.tsv", "--loss", "mnrl", "--batch-size", 4, "--device", "cpu", "-o", "out"]
    assert run(*command)[0] == 0
    assert record()["recipe"]["base"] == "ko-mini"


def test_own_scored_pairs(own):
    code, _, err = own("--max-steps", 1, file="scored.jsonl", loss="cosine")
    assert (code, len(err)) == (0, 2)
    assert err[0].endswith("scored.jsonl: anchor = a, positive = b, label = label")
    assert "similarity_evaluation" not in "".join(os.listdir("out"))
    assert record()["scores"] == {}


def test_the_recipe_for_a_file_of_ones_own(run, place):
    command = ["--recipe", "pet-questions", "--train", place / "scored.jsonl", "-m", place / "base", "-o", "out"]
    assert run(*command, "--device", "cpu")[0] == 0
    assert record()["overridden"] == {"base": "base"}
    assert record()["recipe"]["learning_rate"] == 5e-5


def test_matryoshka(own):
    code, _, _ = own("--matryoshka-dims", "24,8", "--max-steps", 1)
    assert code == 0
    assert record()["recipe"]["matryoshka_dims"] == [24, 8]
    with open("out/README.md", encoding="utf-8") as file:
        assert "MatryoshkaLoss" in file.read()


def test_an_interrupted_run_leaves_the_same_log_and_model(own, killed_at_its_end):
    flags = ("--epochs", 3, "--lr", "1e-3", "--checkpoint-steps", 2)
    assert own(*flags)[0] == 0
    with open("out/model.safetensors", "rb") as file:
        expected = file.read()
    with open("out/metrics.jsonl", encoding="utf-8") as file:
        log = [json.loads(line) for line in file]
    assert not os.path.exists("out/checkpoints")
    # The last training state is of step 8; the ninth step is taken again.
    killed_at_its_end(own, *flags, "--overwrite")
    assert own(*flags, "--resume")[0] == 0
    with open("out/model.safetensors", "rb") as file:
        assert file.read() == expected
    with open("out/metrics.jsonl", encoding="utf-8") as file:
        again = [json.loads(line) for line in file]
    assert [{**line, "seconds": 0} for line in again] == [{**line, "seconds": 0} for line in log]
    killed_at_its_end(own, *flags, "--overwrite")
    code, _, err = own(*flags, "--resume", "--lr", "1e-4")
    assert (code, err[1:]) == (
        2,
        [
            "train.py: out/checkpoints/step-00000008: of another run, with learning_rate 0.001 instead of 0.0001; go on "
            "with the settings it was begun with, or train anew"
        ],
    )


def test_data_that_are_downloaded(run, place, monkeypatch, tmp_path):
    wanted = []

    def download(files, folder, on_bytes):
        wanted.extend(file.path for file in files)
        on_bytes("KorSTS/sts-train.tsv", 10, 20)
        os.symlink(place / "data" / "kor-nlu-datasets", folder)

    monkeypatch.setattr(corpora, "download", download)
    command = ["--recipe", "ko-sroberta-sts", "-m", place / "base", "-o", "out", "--device", "cpu", "--max-steps", 1]
    assert run(*command)[0] == 0
    assert wanted == ["KorSTS/sts-train.tsv", "KorSTS/sts-dev.tsv", "KorSTS/sts-test.tsv"]


def test_the_output_is_not_taken_by_mistake(own, place):
    os.mkdir("out")
    with open("out/note.txt", "w", encoding="utf-8") as file:
        file.write("남의 것")
    refusal = "train.py: out: not empty; pass --resume to go on, or --overwrite to train anew into it"
    assert own()[::2] == (2, [refusal])
    assert own("--resume")[::2] == (2, ["train.py: out: no training run was here to go on with; name another folder"])
    assert own("--overwrite", "--max-steps", 1)[0] == 0
    assert os.path.exists("out/note.txt")


def test_a_bad_test_file_shows_before_training(own, place, fitted):
    path = place / "same.tsv"
    path.write_text("물음\t답\n밥이 뭐야?\t음식\n빵이 뭐야?\t음식\n", encoding="utf-8")
    code, _, err = own("--test", path)
    assert (code, fitted) == (2, [])
    assert err == [f"train.py: {path}: one positive in all: nothing to search among"]


ONE = ["--recipe", "ko-sbert-sts"]
OWN = ["--train", "{place}/pairs.tsv", "--model", "{place}/base", "-o", "out", "--device", "cpu"]
SCORED = ["--train", "{place}/scored.jsonl", *OWN[2:]]
BAD_USAGE = {
    "nothing": ([], "give --recipe NAME (see --list-recipes) or --train FILE"),
    "unknown flag": (["--colour"], "unrecognized arguments: --colour (see --help)"),
    "unknown recipe": (["--recipe", "없음"], "argument --recipe: invalid choice: '없음'"),
    "no loss": (OWN, "--train needs --loss"),
    "train and recipe": ([*ONE, "--train", "x"], "the recipe ko-sbert-sts has its own data, it takes no --train FILE"),
    "no train": (["--recipe", "pet-questions"], "the recipe pet-questions needs --train FILE"),
    "loss of a recipe": ([*ONE, "--loss", "mnrl"], "--loss has no meaning for the recipe ko-sbert-sts"),
    "batch size": ([*ONE, "--batch-size", "8"], "--batch-size has no meaning for the recipe ko-sbert-sts"),
    "nli batch": ([*ONE, "--nli-batch-size", "8"], "--nli-batch-size has no meaning for the recipe ko-sbert-sts"),
    "data and train": ([*OWN, "--loss", "mnrl", "--data", "."], "--data is for recipes with data of their own"),
    "both warm-ups": ([*ONE, "--warmup-ratio", "0.1", "--warmup-steps", "1"], "argument --warmup-steps: not allowed"),
    "resume and overwrite": ([*ONE, "--resume", "--overwrite"], "argument --overwrite: not allowed with"),
    "no number": ([*ONE, "--epochs", "많이"], "argument --epochs: invalid int value: '많이'"),
    "no epochs": ([*ONE, "--epochs", "0"], "--epochs must be at least 1, found 0"),
    "negative": ([*ONE, "--evaluation-steps", "-1"], "--evaluation-steps must be at least 0, found -1"),
    "NaN": ([*ONE, "--lr", "nan"], "--lr must be from 1e-12 to 1, found nan"),
    "no clipping": ([*ONE, "--max-grad-norm", "inf"], "--max-grad-norm must be from 1e-06 to 1000000000.0, found inf"),
    "ratio": ([*ONE, "--warmup-ratio", "1.5"], "--warmup-ratio must be from 0 to 1, found 1.5"),
    "seed": ([*ONE, "--seed", "-1"], "--seed must be from 0 to 18446744073709551615, found -1"),
    "dims": ([*ONE, "--matryoshka-dims", "8,,4"], "--matryoshka-dims 8,,4: expected whole numbers with commas"),
    "dim 0": ([*ONE, "--matryoshka-dims", "8,0"], "--matryoshka-dims 8,0: expected whole numbers with commas"),
    "wide dims": (
        [*OWN, "--loss", "mnrl", "--matryoshka-dims", "25", "--batch-size", "4"],
        "vectors have 24 columns, too few for the 25",
    ),
    "output is a file": ([*OWN, "--loss", "mnrl", "-o", "{place}/pairs.tsv"], "pairs.tsv: a file; name a folder"),
    "no layout": ([*ONE, "--data", "{place}"[:7], "-o", "out"], "no KorSTS folder in it; expected the layout"),
    "no labels": ([*OWN, "--loss", "cosine"], "--loss cosine needs pairs with a column score (0 to 5) or label"),
    "lower labels": ([*SCORED, "--loss", "mnrl"], "--loss mnrl takes the texts of every row to belong together"),
    "nothing to evaluate on": ([*OWN, "--loss", "mnrl", "--evaluation-steps", "7"], "--evaluation-steps needs --dev FILE"),
    "few examples": ([*OWN, "--loss", "mnrl", "--batch-size", "13"], "12 examples do not fill one batch of 13"),
    "device": ([*OWN, "--loss", "mnrl", "--batch-size", "4", "--device", "abacus"], "device 'abacus' cannot be used"),
    "length": ([*OWN, "--loss", "mnrl", "--batch-size", "4", "--max-length", "41"], "can be at most 40"),
    "length 2": ([*OWN, "--loss", "mnrl", "--batch-size", "4", "--max-length", "2"], "max_seq_length"),
    "one pair": (
        [*OWN, "--loss", "mnrl", "--dev", "{place}/one.tsv"],
        "one.tsv: expected at least two pairs, each with a score",
    ),
    "batch of one": ([*OWN, "--loss", "mnrl", "--batch-size", "1"], "a row's wrong answers are the other rows"),
    "a name that is no Unicode": (
        [*OWN, "--loss", "mnrl", "--dev", "\udcb9.tsv"],
        "--dev: character 1 is no Unicode character",
    ),
    "device of a new model": (
        ["--recipe", "ko-mini", "--data", "{place}", "--device", "abacus", "-o", "out"],
        "'abacus'",
    ),
    "column": (
        [*OWN, "--loss", "mnrl", "--dev", "{place}/column.tsv"],
        "column.tsv: no column for the positive among text, score",
    ),
}


@pytest.mark.parametrize("case", BAD_USAGE)
def test_bad_usage(run, place, case):
    arguments, expected = BAD_USAGE[case]
    (place / "column.tsv").write_text("text\tscore\n밥\t1\n", encoding="utf-8")
    (place / "one.tsv").write_text("\n".join([STS_HEADER, *sts_rows(1)]), encoding="utf-8")
    code, out, err = run(*(argument.format(place=place) for argument in arguments))
    assert (code, out, len(err)) == (2, "", 1), err
    assert err[0].startswith("train.py: ")
    assert expected in err[0]
    assert not os.path.exists("out/config.json")


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["--model", "{place}/data"], 3, "config.json"),
        (["--model", "{place}/pairs.tsv"], 3, "pairs.tsv"),
        (["--train", "없는 파일.tsv"], 5, "train.py: 없는 파일.tsv: No such file or directory"),
        (["--train", "{place}"], 5, "Is a directory"),
        (["--dev", "없는 파일.tsv"], 5, "없는 파일.tsv: No such file or directory"),
        (["-o", "/proc/minisbert/out"], 5, "/proc/minisbert"),
    ],
)
def test_failures(own, place, arguments, code, expected):
    found, _, err = own(*(argument.format(place=place) for argument in arguments))
    assert (found, len(err)) == (code, 1), err
    assert expected in err[0]


def test_values_that_are_not_finite(own, place, monkeypatch):
    monkeypatch.setattr(training_step.nn.utils, "clip_grad_norm_", lambda *_: float("inf"))
    code, _, err = own()
    assert (code, len(err)) == (6, 2)
    assert err[1].startswith("train.py: step 1, objective own: loss ")


def test_progress_is_for_terminals(own, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    _, _, err = own("--max-steps", 2)
    shown = [line for line in err if "2/2" in line]
    assert shown and all(part in shown[-1] for part in ("own ", "lr ", "tokens/s"))
    _, _, err = own("--max-steps", 2, "--quiet", "--overwrite")
    assert len(err) == 2


def test_progress_and_scores_do_not_disturb_each_other(own, place, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    dev = place / "data" / "kor-nlu-datasets" / "KorSTS" / "sts-dev.tsv"
    _, _, err = own("--max-steps", 2, "--dev", dev)
    assert any(line.startswith("train.py: step 2: ") for line in err), "on a line of its own"
    assert not any("text/s" in line for line in err), "no second bar"


def test_zeros_are_recorded(own):
    assert own("--seed", 0, "--weight-decay", 0, "--max-steps", 1)[0] == 0
    flags = record()["flags"]
    assert (flags["seed"], flags["weight_decay"], flags["model"]) == ("0", "0.0", "base")


def test_out_of_memory_is_one_line(own, monkeypatch):
    def no_memory(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(training_step, "embed_columns", no_memory)
    expected = "train.py: out of memory; lower the batch size or --max-length, or pass --recompute"
    code, _, err = own()
    assert (code, err[1:]) == (2, [expected])


def test_emulated_bfloat16_is_told(own, monkeypatch):
    for emulated in (True, False):
        monkeypatch.setattr(train_run, "EMULATES_BFLOAT16", emulated)
        _, _, err = own("--dtype", "bfloat16", "--max-steps", 1, "--overwrite")
        assert ("no bfloat16 instructions" in err[0]) == emulated


def test_a_finished_run_says_so(own):
    """Its training states are gone: without a word, the whole run would be repeated."""
    assert own("--max-steps", 1)[0] == 0
    code, out, err = own("--max-steps", 1, "--resume")
    assert (code, out) == (0, "")
    assert err == ["train.py: this run is finished: out; to train anew, pass --overwrite instead of --resume"]


def test_a_run_that_was_begun_anew_is_not_finished(own, killed_at_its_end):
    flags = ("--checkpoint-steps", 2)
    assert own(*flags)[0] == 0
    killed_at_its_end(own, *flags, "--overwrite")
    assert os.path.exists("out/checkpoints/step-00000002")
    code, _, err = own(*flags, "--resume")
    assert code == 0 and "done in" in err[-1]
    assert not os.path.exists("out/checkpoints")


def test_a_resumed_run_must_be_the_same(own, place, tmp_path, killed_at_its_end):
    flags = ("--epochs", 2, "--checkpoint-steps", 2)
    pairs = (place / "pairs.tsv").read_text(encoding="utf-8")
    killed_at_its_end(own, *flags)
    assert "with max_seq_length 40 instead of 16" in own(*flags, "--resume", "--max-length", 16)[2][-1]
    try:
        (place / "pairs.tsv").write_text(pairs.replace("먹는다 3", "마신다 3"), encoding="utf-8")
        code, _, err = own(*flags, "--resume")
    finally:
        (place / "pairs.tsv").write_text(pairs, encoding="utf-8")
    assert (code, err[1:]) == (2, ["train.py: out: the data are not those that this run was begun with; train anew"])


def test_bad_rows_are_told_although_none_is_left(own, tmp_path):
    (tmp_path / "pairs.tsv").write_text("a\tb\tlabel\n밥\t빵\t7\n", encoding="utf-8")
    code, _, err = own("--train", tmp_path / "pairs.tsv", "--skip-bad")
    assert code == 2
    assert "note: 1 bad rows left out, the first: " in err[0]
    assert err[1].endswith("no examples in it")


def test_decomposed_hangul_is_told(own, place, tmp_path):
    decomposed = unicodedata.normalize("NFD", "물음\t답\n밥\t먹는다\n빵\t남자\n")
    (tmp_path / "pairs.tsv").write_text(decomposed, encoding="utf-8")
    assert (
        "4 of the first texts are not in Unicode normal form C"
        in own("--train", tmp_path / "pairs.tsv", "--batch-size", 2)[2][0]
    )
