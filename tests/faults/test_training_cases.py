"""Proves that training survives what can go wrong: the cases T1 to T9, each test named after its number.

Runs that are killed, and runs of two processes, are processes of their own: forked from a server that has imported torch
once, so that each takes a fraction of a second. 20 kills instead of 5: MINISBERT_KILLS=20 pytest -k T1_killed -s
"""

import errno
import hashlib
import itertools
import json
import math
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as distributed
from torch import nn

from minisbert import SentenceEncoder, files
from minisbert.cli import train, train_run
from minisbert.errors import FILE_SYSTEM_EXIT_CODE, InputError, ModelError, NonFiniteError
from minisbert.evaluation import EmbeddingSimilarityEvaluator
from minisbert.training.examples import Example, NoDuplicatesBatches, ShuffledBatches
from minisbert.training.loop import fit
from minisbert.training.losses import CosineSimilarityLoss, MultipleNegativesRankingLoss, Objective
from minisbert.training.plan import Plan
from minisbert.training.training_state import list_states, load_state, save_state, verify
from tests.tiny import tiny_folder, tiny_model
from tests.training.training_case import NO_DROPOUT, PAIRS, TRIPLETS, fixed_batches

KILLS = int(os.environ.get("MINISBERT_KILLS", "5"))
TIMEOUT = 600  # seconds after which a process of a test must hang; it is never waited for otherwise

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["torch._dynamo", __name__])  # an optimizer's first step imports the former

EVALUATOR = EmbeddingSimilarityEvaluator(
    [pair.texts[0] for pair in PAIRS], [pair.texts[1] for pair in PAIRS], [pair.label for pair in PAIRS], "dev"
)


def objectives(seed=7):
    return [
        Objective(NoDuplicatesBatches(TRIPLETS, 4, seed), MultipleNegativesRankingLoss(), "nli"),
        Objective(ShuffledBatches(PAIRS, 5, seed), CosineSimilarityLoss(), "sts"),
    ]


PLAN = Plan(4, learning_rate=1e-3, warmup_steps=2, seed=7, checkpoint_steps=2, evaluation_steps=2)


def run(output, plan=PLAN, evaluator=EVALUATOR, **options):
    """Four epochs of three steps with dropout, evaluated and saved often; returns the trained model."""
    model = tiny_model()
    fit(model, objectives(plan.seed), plan, output, evaluator, **options)
    return model


def metrics(folder):
    """The log without its times."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def results(folder):
    """All that a run leaves: the last weights, the best model, its log and its table of evaluations."""
    last = list_states(folder / "checkpoints")[0]
    state = json.loads((last / "state.json").read_text(encoding="utf-8"))
    del state["log"]  # how long the log is depends on its times
    table = folder / "eval" / "similarity_evaluation_dev_results.csv"
    files = (last / "model.safetensors", folder / "model.safetensors", table)
    return state, [hashlib.sha256(path.read_bytes()).hexdigest() for path in files], metrics(folder)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("끝까지")
    run(folder)
    return folder


@pytest.fixture(autouse=True)
def signals_as_before():
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def started(function, *arguments):
    process = PROCESSES.Process(target=function, args=arguments, daemon=True)
    process.start()
    return process


def resume_until_killed(output, flushes, calls):
    """A run that kills itself right before so many files have been brought to the disk, or so many functions called."""
    torch.set_num_threads(1)
    fsync = os.fsync
    events = itertools.count(1)

    def kill_at(last):
        if next(events) == last:
            os.kill(os.getpid(), signal.SIGKILL)

    if flushes:
        os.fsync = lambda descriptor: [kill_at(flushes), fsync(descriptor)]
    else:
        sys.setprofile(lambda *_: kill_at(calls))
    run(output, resume=True)


def calls_of_a_run(output):
    """How many times a whole run calls a function or comes back from one."""
    events = itertools.count()
    sys.setprofile(lambda *_: next(events))
    try:
        run(output)
    finally:
        sys.setprofile(None)
    return next(events)


def test_T1_killed_at_random_moments_then_resumed(tmp_path, uninterrupted):
    """Moments are counted in what the program does, not in seconds: a slow machine is killed where a fast one is."""
    draw = random.Random(KILLS)
    calls = calls_of_a_run(tmp_path / "counted")
    story = []  # what was done and seen, for the message
    killed = in_save = runs = 0
    folder = tmp_path / "run 0"
    while killed < KILLS:
        # Every other kill hits between two files of a training state or of the best model: a step has up to 19 of them.
        flushes = draw.randint(1, 40) if killed % 2 else 0
        at = draw.randint(1, calls // 2)
        before = {path: path.stat().st_mtime_ns for path in folder.rglob(".*part")}
        process = started(resume_until_killed, folder, flushes, at)
        process.join(TIMEOUT)
        found = list_states(folder / "checkpoints")
        moment = f"file {flushes}" if flushes else f"call {at} of {calls}"
        story.append(f"{folder.name}, {moment}: exit code {process.exitcode}, states {[path.name for path in found]}")
        if process.exitcode == 0:  # it was done before it was killed; this happens late in a run: begin another
            assert results(folder) == results(uninterrupted), story
            runs += 1
            folder = tmp_path / f"run {runs}"
            continue
        assert process.exitcode == -signal.SIGKILL, story
        killed += 1
        in_save += {path: path.stat().st_mtime_ns for path in folder.rglob(".*part")} != before
        if found:
            verify(found[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no kill may leave a torn training state under its final name
        if not list_states(folder / "checkpoints"):  # the last kill came before the first one
            warnings.filterwarnings("ignore", r".*no training state to go on from")
        run(folder, resume=True)
    assert results(folder) == results(uninterrupted), story
    print(f"{killed} kills, {in_save} of them inside a save", *story, sep="\n")


class Spoilt:
    """The cosine loss, but for call `at`, where it is infinite, or finite with an infinite gradient."""

    def __init__(self, at, what):
        self.at, self.what, self.calls = at, what, 0

    def __call__(self, embeddings, labels):
        self.calls += 1
        value = CosineSimilarityLoss()(embeddings, labels)
        if self.calls < self.at:
            return value
        return value * math.nan if self.what == "loss" else value + (embeddings[0][0, 0] * 0).sqrt()


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_T2_stops_before_a_step_that_is_not_finite(what, tmp_path, monkeypatch):
    model = tiny_model()
    moved = []
    each = [Objective(ShuffledBatches(PAIRS, 5, 7), Spoilt(4, what), "sts")]
    with pytest.raises(NonFiniteError, match=r"^step 4, objective sts: loss .*, gradient norm .*; this update was not made"):
        fit(
            model,
            each,
            Plan(4, checkpoint_steps=2),
            tmp_path,
            on_step=lambda _: moved.append([parameter.detach().clone() for parameter in model.parameters()]),
        )
    assert NonFiniteError.exit_code == 6
    assert len(moved) == 3
    for parameter, before in zip(model.parameters(), moved[-1], strict=True):
        assert torch.equal(parameter, before)
        assert parameter.grad is None
    assert verify(list_states(tmp_path / "checkpoints")[0])["step"] == 2


def no_space(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("failing", ["fsync", "mkdir"])
def test_T3_disk_full_in_a_checkpoint(failing, tmp_path, monkeypatch):
    def fill_the_disk(report):
        if report.step == 4:
            monkeypatch.setattr(*((os, "fsync") if failing == "fsync" else (Path, "mkdir")), no_space)

    with pytest.raises(OSError, match="No space left"):
        run(tmp_path, evaluator=None, on_step=fill_the_disk)
    monkeypatch.undo()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000002"]
    assert verify(tmp_path / "checkpoints" / "step-00000002")["step"] == 2


def test_T3_disk_full_is_an_error_of_the_file_system(tmp_path):
    resource = pytest.importorskip("resource")
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))  # as good as a full disk to the kernel's callers
        with pytest.raises(OSError, match=r"model\.safetensors"):
            save_state(tmp_path, 1, tiny_model(), [], {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []


PAIRS_FILE = "anchor\tpositive\tscore\n" + "".join(f"{pair.texts[0]}\t{pair.texts[1]}\t{5 * pair.label}\n" for pair in PAIRS)


@pytest.fixture
def command(tmp_path):
    """A command line for train.py: a tiny model, twelve pairs, 12 steps."""
    (tmp_path / "pairs.tsv").write_text(PAIRS_FILE, encoding="utf-8")
    tiny_folder(tmp_path / "base")
    files = ["--train", tmp_path / "pairs.tsv", "--model", tmp_path / "base", "-o", tmp_path / "out"]
    numbers = ["--batch-size", "4", "--epochs", "4", "--lr", "1e-3", "--loss", "cosine", "--device", "cpu"]
    return [str(each) for each in (*files, *numbers)]


def test_T3_disk_full_ends_train_py_with_code_5(command, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(files.os, "fsync", no_space)
    assert train.main([*command, "--checkpoint-steps", "2"]) == FILE_SYSTEM_EXIT_CODE
    assert capsys.readouterr().err.splitlines()[-1] == f"train.py: {tmp_path / 'out'}: No space left on device"
    assert not (tmp_path / "out" / "config.json").exists()


def signal_at(step, number, monkeypatch):
    """Sends this process a signal in the given step of training."""
    from minisbert.training import loop

    report = loop.StepReport

    def reported(done, *rest):
        if done == step:
            os.kill(os.getpid(), number)
        return report(done, *rest)

    monkeypatch.setattr(loop, "StepReport", reported)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_T4_a_signal_stops_after_a_checkpoint_of_the_step(command, tmp_path, monkeypatch, capsys, number, code):
    with monkeypatch.context() as patches:
        signal_at(5, number, patches)
        assert train.main(command) == code
    assert "--resume" in capsys.readouterr().err
    checkpoint = tmp_path / "out" / "checkpoints" / "step-00000005"
    assert verify(checkpoint)["step"] == 5
    assert train.main([*command, "--resume"]) == 0
    found = (tmp_path / "out" / "model.safetensors").read_bytes()
    assert train.main([*command, "--overwrite"]) == 0
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == found


def endless_run(told):
    """A run whose first step does not end; says when the first signal has been heard."""

    class Endless(ShuffledBatches):
        def __iter__(self):
            told.set()
            while True:
                time.sleep(0.01)  # Python runs a signal's handler between two calls: one endless call could miss it

    train.SAME_SIGNAL = 0.0
    stop = train.Stop(lambda _: told.set())
    stop.training = True
    fit(tiny_model(), [Objective(Endless(PAIRS, 4, 7), CosineSimilarityLoss())], Plan(9), should_stop=stop)


def test_T4_a_second_signal_stops_at_once():
    told = PROCESSES.Event()
    process = started(endless_run, told)
    assert told.wait(TIMEOUT)
    told.clear()
    os.kill(process.pid, signal.SIGTERM)
    assert told.wait(TIMEOUT)
    os.kill(process.pid, signal.SIGTERM)
    process.join(TIMEOUT)
    assert process.exitcode == 143


def test_T4_a_second_signal_that_comes_so_soon_is_taken_for_the_same(monkeypatch):
    now, exits, heard = [100.0], [], []
    monkeypatch.setattr(train.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(train.os, "_exit", exits.append)
    stop = train.Stop(heard.append)
    stop.training = True
    for seconds in (0, 0.1, train.SAME_SIGNAL, 1.1 * train.SAME_SIGNAL):
        assert exits == []
        now[0] = 100.0 + seconds
        signal.raise_signal(signal.SIGINT)
    assert (stop(), exits, len(heard)) == (True, [130], 1)


def test_T4_a_signal_before_training_ends_the_program(command, monkeypatch, capsys):
    monkeypatch.setattr(train_run, "load_data", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
    assert train.main(command) == 143
    assert capsys.readouterr().err == "train.py: terminated\n"


CHECKPOINT_FILES = [
    "model.safetensors",
    "optimizer-0.safetensors",
    "optimizer-1.safetensors",
    "state.json",
    "sha256.json",
]


@pytest.mark.parametrize("damage", ["missing", "flipped"])
@pytest.mark.parametrize("file", CHECKPOINT_FILES)
def test_T5_a_torn_checkpoint_is_passed_over(file, damage, tmp_path, uninterrupted):
    folder = shutil.copytree(uninterrupted, tmp_path / "run")
    last, before = list_states(folder / "checkpoints")
    assert sorted(path.name for path in last.iterdir()) == sorted(CHECKPOINT_FILES)
    tear(last / file, damage)
    with pytest.raises(ModelError, match=last.name) as caught:
        verify(last)
    assert caught.value.exit_code == 3
    with pytest.warns(UserWarning, match=rf"{last.name}.*this training state is passed over"):
        run(folder, resume=True)
    assert results(folder) == results(uninterrupted)
    assert list_states(folder / "checkpoints") == [last, before]


def tear(path, damage):
    if damage == "missing":
        path.unlink()
    else:
        data = bytearray(path.read_bytes())
        data[len(data) * 2 // 3] ^= 1
        path.write_bytes(data)


def test_T5_every_byte_of_the_state_counts(uninterrupted, tmp_path):
    checkpoint = shutil.copytree(list_states(uninterrupted / "checkpoints")[0], tmp_path / "step-00000001")
    for name in ("state.json", "sha256.json"):
        whole = (checkpoint / name).read_bytes()
        for place in range(0, len(whole), 7):
            (checkpoint / name).write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            try:
                assert verify(checkpoint)["step"] == 12, "a flip that does no harm, of one white space into another"
            except ModelError:
                pass
        (checkpoint / name).write_bytes(whole)
    assert verify(checkpoint)["step"] == 12


def test_T5_all_torn(command, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patches:
        patches.setattr(train_run, "finish", lambda *_: None)  # killed before its end
        assert train.main([*command, "--checkpoint-steps", "4", "--max-steps", "6"]) == 0
    (checkpoint,) = list_states(tmp_path / "out" / "checkpoints")
    tear(checkpoint / "state.json", "flipped")
    capsys.readouterr()
    assert train.main([*command, "--checkpoint-steps", "4", "--max-steps", "6", "--resume"]) == 3
    assert "no training state is left to go on from" in capsys.readouterr().err


def test_T6_same_seed_same_weights(tmp_path, uninterrupted):
    torch.manual_seed(123)  # what else the program draws makes no difference
    random.seed(123)
    run(tmp_path / "again")
    assert results(tmp_path / "again") == results(uninterrupted)
    run(tmp_path / "other", replace(PLAN, seed=8))
    assert metrics(tmp_path / "other") != metrics(uninterrupted)
    assert results(tmp_path / "other")[1][0] != results(uninterrupted)[1][0]


BAD_ROWS = {
    "두 칸\t뿐": "2 columns, expected 3",
    "가\t나\t3.0\t다": "4 columns, expected 3",
    "가\t나\tabc": "'abc' is not a number",
    "가\t나\tnan": "'nan' is not between 0 and 5",
    "가\t나\t7": "'7' is not between 0 and 5",
    "가\t나\t-0.5": "'-0.5' is not between 0 and 5",
    "가\t나\t": "'' is not a number",
    "가\t \t1.0": "the column 'positive' is empty",
    "": "1 columns, expected 3",
}


@pytest.mark.parametrize("row", BAD_ROWS)
def test_T7_bad_rows_are_named_or_skipped(row, command, tmp_path, capsys):
    lines = PAIRS_FILE.splitlines()
    path = tmp_path / "pairs.tsv"
    path.write_text("\n".join([*lines[:3], row, *lines[3:-1], row, lines[-1], ""]), encoding="utf-8")
    assert train.main([*command, "--max-steps", "1"]) == 2
    message = f"{path}:4: {BAD_ROWS[row]}"
    assert capsys.readouterr().err == f"train.py: {message}; correct it, or pass --skip-bad to leave such rows out\n"
    assert train.main([*command, "--max-steps", "1", "--skip-bad"]) == 0
    assert f"train.py: note: 2 bad rows left out, the first: {message}\n" in capsys.readouterr().err


def test_T7_a_quotation_mark_is_a_character(command, tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text(PAIRS_FILE + '"밥을 먹는다.\t빵을 먹는다.\t3\n한 아이\t"두 아이"\t3\n', encoding="utf-8")
    assert train.main([*command, "--max-steps", "1"]) == 0
    assert "Size: 14 training samples" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


# T8: two processes. Every row of the ranking batches has a hard negative; the last regression batch has two rows.


def gradients_of_a_run(rank, processes, store, results):
    """Train without dropout and note every loss and the gradients that move the parameters, then the parameters."""
    torch.set_num_threads(1)
    if processes > 1:
        distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=processes)
    noted = []
    clip = nn.utils.clip_grad_norm_

    def noting(parameters, longest):
        parameters = list(parameters)
        noted.append(torch.cat([each.grad.flatten() for each in parameters if each.grad is not None]).clone())
        return clip(parameters, longest)

    nn.utils.clip_grad_norm_ = noting
    model = tiny_model(**NO_DROPOUT).double()
    reports = []
    ranking, regression = fixed_batches()
    each = [
        Objective(ranking, MultipleNegativesRankingLoss(), "nli"),
        Objective(regression, CosineSimilarityLoss(), "sts"),
    ]
    fit(model, each, Plan(2, learning_rate=1e-4), on_step=reports.append)
    if rank == 0:
        losses = torch.tensor([[*report.losses.values(), report.tokens] for report in reports], dtype=torch.float64)
        torch.save([losses, torch.stack(noted)], results)
    if processes > 1:
        distributed.destroy_process_group()


def joined(processes):
    for process in processes:
        process.join(TIMEOUT)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    return codes


def test_T8_two_processes_do_what_one_does(tmp_path):
    runs = []
    for count in (1, 2):
        results = tmp_path / f"{count}.pt"
        arguments = [(rank, count, tmp_path / "store", results) for rank in range(count)]
        assert joined([started(gradients_of_a_run, *each) for each in arguments]) == [0] * count
        runs.append(torch.load(results))
    (losses, gradients), (losses_of_two, gradients_of_two) = runs
    assert losses.shape == (6, 3)
    torch.testing.assert_close(losses_of_two[:, :2], losses[:, :2], atol=1e-5, rtol=0)
    largest = gradients.abs().amax(dim=1, keepdim=True)  # of each update
    assert largest.min() > 1e-5, "or there would be nothing to compare"
    torch.testing.assert_close(gradients_of_two / largest, gradients / largest, atol=1e-5, rtol=0)


def train_py_in_a_process(rank, processes, port, how, arguments, errors):
    """train.py as torchrun starts it; process 1 fails in step 3 in the given way."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT), 2)
    patches = pytest.MonkeyPatch()
    if rank == 1 and how == "killed":
        signal_at(3, signal.SIGKILL, patches)
    elif rank == 1 and how == "stopped":
        signal_at(3, signal.SIGTERM, patches)
    elif rank == 1 and "data" in how:
        text = "\n".join(PAIRS_FILE.splitlines()[:6]) if how == "less data" else PAIRS_FILE.replace("밥", "빵")
        file = Path(arguments[1]).with_name("others.tsv")
        file.write_text(text, encoding="utf-8")
        arguments = ["--train", str(file), *arguments[2:]]
    elif rank == 1:
        patches.setattr("minisbert.training.loop.gather", no_space)
    raise SystemExit(train.main(arguments))


@pytest.mark.parametrize(
    ("how", "codes"),
    [("raises", [5, 5]), ("killed", [5, -9]), ("stopped", [143, 143]), ("less data", [2, 2]), ("other data", [2, 2])],
)
def test_T8_all_processes_end_when_one_does(how, codes, command, tmp_path, unused_port):
    errors = [tmp_path / f"errors {rank}" for rank in range(2)]
    processes = [started(train_py_in_a_process, rank, 2, unused_port, how, command, path) for rank, path in enumerate(errors)]
    assert joined(processes) == codes
    (note, *first), second = (path.read_text(encoding="utf-8").splitlines() for path in errors)
    assert note.endswith("pairs.tsv: anchor = anchor, positive = positive, label = score / 5")
    if how == "stopped":
        assert verify(tmp_path / "out" / "checkpoints" / "step-00000003")["step"] == 3
        assert second == []
    elif "data" in how:
        complaint = "the processes of this run have different data or settings; give all of them the same"
        assert (first, second) == ([f"train.py: {complaint}"], [f"train.py: process 1: {complaint}"])
    else:
        assert first == ["train.py: another process of this run has ended; see what it said"]
        assert second == ([f"train.py: process 1: {tmp_path / 'out'}: No space left on device"] if how == "raises" else [])
    assert not (tmp_path / "out" / "config.json").exists()


@pytest.fixture
def unused_port():
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_T8_a_batch_that_cannot_be_divided(monkeypatch):
    from minisbert.training.examples import share_of_batch

    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(distributed, "get_rank", lambda: 1)
    ranking = next(iter(NoDuplicatesBatches(TRIPLETS, 3, 7)))
    with pytest.raises(InputError, match="a batch of 3 examples cannot be divided among 2 processes"):
        share_of_batch(ranking)
    regression = next(iter(ShuffledBatches(PAIRS, 3, 7)))
    assert share_of_batch(regression) == regression


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_T9_modes_follow_the_umask(umask, tmp_path):
    before = os.umask(umask)
    try:
        run(tmp_path / "out", replace(PLAN, max_steps=2))
    finally:
        os.umask(before)
    for path in (tmp_path / "out").rglob("*"):
        expected = (0o777 if path.is_dir() else 0o666) & ~umask
        assert path.stat().st_mode & 0o777 == expected, path


def test_T9_training_into_the_folder_it_was_loaded_from(command, tmp_path):
    base, out = tmp_path / "base", tmp_path / "out"
    assert train.main(command) == 0
    (base / "메모.txt").write_text("남아 있어야 한다", encoding="utf-8")
    command[command.index(str(out))] = str(base)
    assert train.main([*command, "--overwrite"]) == 0
    assert (base / "메모.txt").exists()
    assert (base / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()
    vectors = SentenceEncoder.from_pretrained(base, device="cpu").encode(["한 남자가 밥을 먹는다."])
    assert (vectors == SentenceEncoder.from_pretrained(out, device="cpu").encode(["한 남자가 밥을 먹는다."])).all()


def test_T9_a_run_into_the_folder_it_was_loaded_from_is_resumed(command, tmp_path, monkeypatch):
    """The best model so far, saved there, has another config.json than the base, which computes the same."""
    base = tmp_path / "base"
    before = (base / "config.json").read_text(encoding="utf-8").replace("torch_dtype", "dtype")
    (base / "config.json").write_text(before, encoding="utf-8")
    rows = PAIRS_FILE.partition("\n")[2]
    (tmp_path / "dev.tsv").write_text("sentence1\tsentence2\tscore\n" + rows, encoding="utf-8")
    command[command.index(str(tmp_path / "out"))] = str(base)
    command += ["--dev", str(tmp_path / "dev.tsv")]
    with monkeypatch.context() as patches:
        signal_at(5, signal.SIGTERM, patches)
        assert train.main([*command, "--overwrite"]) == 143
    assert (base / "config.json").read_text(encoding="utf-8") != before
    assert train.main([*command, "--resume"]) == 0


def test_resuming_another_run_is_refused(tmp_path):
    short = replace(PLAN, max_steps=4)
    run(tmp_path, short)
    with pytest.raises(InputError, match=r"step-00000004: of another run, with learning_rate 0\.001 instead of 0\.1"):
        run(tmp_path, replace(short, learning_rate=0.1), resume=True)
    other = [Objective(ShuffledBatches([Example(("가", "나"), 1.0)], 1, 7), CosineSimilarityLoss())]
    with pytest.raises(InputError, match="of another run, with objectives"):
        fit(tiny_model(), other, Plan(1), tmp_path, resume=True)


def test_resuming_with_another_model_of_the_same_size_is_refused(tmp_path):
    begin = [Objective(ShuffledBatches(PAIRS, 2, 7), CosineSimilarityLoss())]
    plan = Plan(1, max_steps=2, checkpoint_steps=1)
    fit(tiny_model("roberta"), begin, plan, tmp_path)
    with pytest.raises(InputError, match=r"with hidden_dropout_prob 0\.1 instead of 0\.2"):
        fit(tiny_model("roberta", hidden_dropout_prob=0.2), begin, plan, tmp_path, resume=True)
    with pytest.raises(InputError, match="with encoder Roberta instead of Bert"):
        fit(tiny_model("bert"), begin, plan, tmp_path, resume=True)


def test_a_run_without_clipping_can_be_resumed(tmp_path):
    for resume in (False, True):
        begin = [Objective(ShuffledBatches(PAIRS, 2, 7), CosineSimilarityLoss())]
        plan = Plan(1, max_grad_norm=1e9, max_steps=2, checkpoint_steps=1)
        fit(tiny_model(), begin, plan, tmp_path, resume=resume)
    assert [line["step"] for line in metrics(tmp_path)] == [1, 2]


def test_a_new_run_does_not_take_up_an_old_one(tmp_path):
    run(tmp_path, replace(PLAN, max_steps=4))
    old_table = tmp_path / "eval" / "similarity_evaluation_old_results.csv"
    old_table.write_text("", encoding="utf-8")
    run(tmp_path, replace(PLAN, max_steps=1))
    assert not old_table.exists()
    assert list_states(tmp_path / "checkpoints") == []
    assert [line["step"] for line in metrics(tmp_path) if "losses" in line] == [1]


def test_without_a_checkpoint_there_is_nothing_to_take_up(tmp_path):
    assert load_state(tmp_path, tiny_model(), [], {}) is None
