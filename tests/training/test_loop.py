"""Proves what the training loop promises beyond the parity with the reference: order, evaluation, log, what is left.

What can go wrong is in test_training_cases.py, every number of a run in parity/test_training.py.
"""

import csv
import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from minisbert import SentenceEncoder
from minisbert.errors import InputError
from minisbert.evaluation import EmbeddingSimilarityEvaluator
from minisbert.text.batching import plan_batches
from minisbert.training import loop
from minisbert.training import step as training_step
from minisbert.training.examples import Batch, Example, ShuffledBatches
from minisbert.training.log import TrainingLog
from minisbert.training.loop import Stopped, fit
from minisbert.training.losses import CosineSimilarityLoss, Objective
from minisbert.training.optim import OriginalAdamW, build_optimizer
from minisbert.training.plan import Plan
from minisbert.training.step import embed_columns
from tests.tiny import CONFIGS, SENTENCES, tiny_folder, tiny_model
from tests.training.training_case import NO_DROPOUT, PAIRS, TRAINING_MODEL, compare, train


class Scores(EmbeddingSimilarityEvaluator):
    """An evaluator whose largest Spearman is the next of the given scores; it notes the weights it was given."""

    def __init__(self, *scores, others=0.1):
        super().__init__(["밥", "빵"], ["물", "길"], [1, 2], "dev")
        self.scores, self.others, self.seen = list(scores), others, []

    def __call__(self, model):
        assert not model.training
        self.seen.append(model.fingerprint())
        return {**dict.fromkeys(self.columns.values(), self.others), "dev_spearman_dot": self.scores.pop(0)}


def test_golden_run(tmp_path):
    """Every step of a run that sentence-transformers recorded (tests/golden/record.py)."""
    path = Path(__file__).parents[1] / "golden" / "training.safetensors"
    with safe_open(path, framework="pt") as file:
        steps = json.loads(file.metadata()["steps"])
    recording = load_file(path)
    folder = tiny_folder(tmp_path / "model", TRAINING_MODEL, **NO_DROPOUT)
    start = {name.removeprefix("weights/"): value for name, value in recording.items() if name.startswith("weights/")}
    save_file(start, folder / "model.safetensors")
    model = SentenceEncoder.from_pretrained(folder, device="cpu", dtype=torch.float64)
    end = {name.removeprefix("trained/"): value for name, value in recording.items() if name.startswith("trained/")}
    compare(train(model), steps, model, end)


def cosine(batch_size=4, examples=PAIRS, seed=1):
    return Objective(ShuffledBatches(examples, batch_size, seed), CosineSimilarityLoss(), "sts")


def kept(folder):
    return SentenceEncoder.from_pretrained(folder, device="cpu").fingerprint()


@pytest.mark.parametrize("model_type", CONFIGS)
def test_columns_are_embedded_as_encode_does(model_type):
    model = tiny_model(model_type, **NO_DROPOUT).train()
    columns = [SENTENCES[:3], SENTENCES[3:]]
    embeddings, tokens = embed_columns(model, columns)
    assert [len(column) for column in embeddings] == [3, 3]
    assert tokens == model.tokenizer(SENTENCES).lengths.sum()
    np.testing.assert_allclose(torch.cat(embeddings).detach(), model.eval().encode(SENTENCES), atol=1e-5)


def test_a_batch_is_cut_into_chunks_with_little_padding(monkeypatch):
    plans = []

    def noting(lengths, *budget):
        plans.append(plan_batches(lengths, *budget))
        return plans[-1]

    monkeypatch.setattr("minisbert.training.step.plan_batches", noting)
    long = ["남자가 밥을 먹고 있다 " * 6] * 40
    embeddings, _ = embed_columns(tiny_model(), [["밥"] * 40, long])
    assert len(plans[0]) > 1
    assert [len(column) for column in embeddings] == [40, 40]
    torch.testing.assert_close(embeddings[0][0], embeddings[0][39], atol=1e-5, rtol=0)


def test_the_best_model_is_kept(tmp_path):
    scores = Scores(0.3, 0.5, 0.5, 0.4)
    best = fit(tiny_model(), [cosine()], Plan(4, learning_rate=1e-3), tmp_path, scores)
    assert best == 0.5
    assert len(set(scores.seen)) == 4
    assert kept(tmp_path) == scores.seen[1], "strictly greater: the first of the two"


def test_a_model_without_a_correlation_is_the_worst(tmp_path):
    scores = Scores(math.nan, -0.2, math.nan, others=math.nan)
    assert fit(tiny_model(), [cosine()], Plan(3, learning_rate=1e-3), tmp_path, scores) == -0.2
    assert kept(tmp_path) == scores.seen[1]
    log = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    lines = [json.loads(line, parse_constant=pytest.fail) for line in log]
    assert [line["evaluation"]["dev_spearman_dot"] for line in lines if "evaluation" in line] == [None, -0.2, None]


def test_when_it_evaluates(tmp_path):
    reports = []
    evaluator = Scores(*np.arange(9) / 9)
    fit(tiny_model(), [cosine(3)], Plan(2, evaluation_steps=2), tmp_path, evaluator, on_step=reports.append)
    told = [(report.step, report.evaluation["dev_spearman_dot"]) for report in reports if report.evaluation is not None]
    # Four steps an epoch: after the second and, in place of the fourth, at the end.
    assert [step for step, _ in told] == [2, 4, 6, 8]
    with (tmp_path / "eval" / "similarity_evaluation_dev_results.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["epoch", "steps", *evaluator.columns]
    assert header[2:4] == ["cosine_pearson", "cosine_spearman"]
    assert [row[:2] for row in rows] == [["0", "2"], ["0", "-1"], ["1", "2"], ["1", "-1"]]
    assert [float(row[header.index("dot_spearman")]) for row in rows] == [score for _, score in told]


def test_the_log(tmp_path):
    reports = []
    fit(
        tiny_model(),
        [cosine(3), Objective(ShuffledBatches(PAIRS, 6, 2), CosineSimilarityLoss(), "둘째")],
        Plan(2, learning_rate=1e-3, warmup_steps=2),
        tmp_path,
        on_step=reports.append,
    )
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]  # two an epoch: as many as the shorter objective has
    assert [line["epoch"] for line in lines] == [0, 0, 1, 1]
    assert [line["learning_rate"] for line in lines] == [0, 0.5e-3, 1e-3, 0.5e-3]
    assert list(lines[0]["losses"]) == list(lines[0]["gradient_norms"]) == ["sts", "둘째"]
    assert lines[2]["losses"] == reports[2].losses
    assert lines[0]["total_steps"] == 4
    assert lines[0]["tokens"] > 100
    assert not (tmp_path / "eval").exists()
    assert not (tmp_path / "checkpoints").exists()
    assert kept(tmp_path)


def test_a_run_that_has_done_no_step_yet_can_be_told_from_none(tmp_path):
    TrainingLog(tmp_path / "out").start(0, None)
    assert (tmp_path / "out" / "metrics.jsonl").read_bytes() == b""


def test_a_log_that_was_removed_is_begun_again(tmp_path):
    evaluator = Scores(0.5, 0.6)
    log = TrainingLog(tmp_path, evaluator)
    log.start(2, [5000, 300])
    assert log.sizes() == [0, 0]
    log.evaluation(0, -1, 3, evaluator(tiny_model().eval()))
    before = log.sizes()
    log.evaluation(1, -1, 6, evaluator(tiny_model().eval()))
    log.start(3, before)
    assert log.sizes() == before
    TrainingLog(None).evaluation(0, -1, 3, {})


class RecordedEvents:
    """In place of tensorboard's writer."""

    def __init__(self, folder, purge_step):
        self.folder, self.purge_step, self.scalars, self.closed = folder, purge_step, {}, False
        EVENTS.append(self)

    def add_scalar(self, name, value, step):
        self.scalars[name, step] = value

    def close(self):
        self.closed = True


EVENTS = []


def test_events_say_what_the_metrics_say(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=RecordedEvents))
    EVENTS.clear()
    plan = Plan(2, checkpoint_steps=3, max_steps=6)
    fit(tiny_model(), [cosine()], plan, tmp_path, Scores(0.2, 0.3))
    (events,) = EVENTS
    assert (events.folder, events.purge_step, events.closed) == (str(tmp_path / "tensorboard"), 1, True)
    expected = {}
    for line in (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if "losses" in entry:
            numbers = {"loss/sts": entry["losses"]["sts"], "gradient norm/sts": entry["gradient_norms"]["sts"]}
            numbers["learning rate"] = entry["learning_rate"]
        else:
            numbers = {f"evaluation/{name}": value for name, value in entry["evaluation"].items()}
        expected |= {(name, entry["step"]): value for name, value in numbers.items()}
    assert len(expected) == 6 * 3 + 2 * 8
    assert events.scalars == expected

    fit(tiny_model(), [cosine()], plan, tmp_path, Scores(0.4), resume=True)
    assert EVENTS[1].purge_step == 7, "what an interrupted run noted after its checkpoint is not shown twice"


def test_an_event_file_is_written_where_tensorboard_is_installed(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    fit(tiny_model(), [cosine()], Plan(1, max_steps=2), tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss/sts")] == [1, 2]


def test_objectives_of_one_name_are_told_apart(tmp_path):
    reports = []
    fit(
        tiny_model(),
        [cosine(seed=1), cosine(seed=2)],
        Plan(1, max_steps=1),
        str(tmp_path / "out"),
        on_step=reports.append,
    )
    assert list(reports[0].losses) == ["sts-1", "sts-2"]
    assert reports[0].losses["sts-1"] != reports[0].losses["sts-2"]
    assert kept(tmp_path / "out")


def test_a_run_without_a_training_state_begins_anew_and_says_so(tmp_path):
    with pytest.warns(UserWarning, match="no training state to go on from; the run begins anew"):
        fit(tiny_model(), [cosine()], Plan(1, max_steps=1), tmp_path, resume=True)


def test_sparse_gradients_change_nothing():
    """The gradients of a step, against those of all texts in one batch by plain autograd."""
    found, sparse = {}, []
    clip = torch.nn.utils.clip_grad_norm_

    def noting(parameters, longest):
        found.update({name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None})
        return clip(parameters, longest)

    for model_type in CONFIGS:
        model = tiny_model(model_type, **NO_DROPOUT).double()
        with pytest.MonkeyPatch.context() as patches:
            patches.setattr(torch.nn.utils, "clip_grad_norm_", noting)
            patches.setattr("minisbert.training.step.batch_budget", lambda *_: (16, 0))  # many chunks
            token = model.encoder.embeddings.token.weight
            hook = token.register_post_accumulate_grad_hook(lambda parameter: sparse.append(parameter.grad.is_sparse))
            fit(model, [cosine()], Plan(1, max_steps=1, warmup_steps=1))  # of rate 0: it moves nothing
        hook.remove()
        assert sparse == [True]
        sparse.clear()
        assert not any(module.sparse for module in model.modules() if isinstance(module, torch.nn.Embedding))
        batch = next(iter(ShuffledBatches(PAIRS, 4, 1)))
        tokenized = model.tokenizer([text for column in batch.texts for text in column])
        vectors = model(*model.tokenizer.pad(tokenized, np.arange(8)))
        labels = torch.tensor(batch.labels)
        CosineSimilarityLoss()(list(vectors.split(4)), labels).backward()
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                torch.testing.assert_close(found[name], parameter.grad, atol=1e-12, rtol=0)
        found.clear()


def test_steps_and_epochs():
    def steps(**options):
        seen = []
        fit(tiny_model(), [cosine(3)], Plan(**options), on_step=lambda report: seen.append(report.learning_rate))
        return seen

    assert len(steps(epochs=2)) == 8
    assert len(steps(epochs=2, steps_per_epoch=5)) == 10, "the batches start over"
    # The schedule ends with the last step.
    assert steps(epochs=2, max_steps=4, learning_rate=1.0) == steps(epochs=1, learning_rate=1.0) == [1, 0.75, 0.5, 0.25]
    assert len(steps(epochs=1, max_steps=99)) == 4


@pytest.mark.parametrize(
    ("objectives", "plan"), [([], Plan(1)), ([cosine(4, [])], Plan(1)), ([cosine(4, [])], Plan(1, steps_per_epoch=1))]
)
def test_nothing_to_train_on(objectives, plan):
    with pytest.raises(InputError, match="nothing to train on"):
        fit(tiny_model(), objectives, plan)


def test_nothing_is_left_behind():
    model = tiny_model()
    model.train()
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 1e6)  # of something else; must not count
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    norms = []
    fit(model, [cosine()], Plan(1), on_step=lambda report: norms.append(report.gradient_norms["sts"]))
    assert max(norms) < 100
    assert torch.equal(torch.rand(3), expected), "the generator of the caller is as it was"
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_run_that_stops_leaves_a_model_that_can_encode():
    model = tiny_model()
    with pytest.raises(Stopped):
        fit(model, [cosine()], Plan(1), should_stop=lambda: True)
    assert not model.training


def test_dropout_depends_on_the_seed_and_the_step_alone():
    def losses(**options):
        return [report.losses for report in train(tiny_model(), **options)]

    assert losses(seed=1) == losses(seed=1)
    assert losses(seed=1)[0] != losses(seed=2)[0]
    one = Batch((["한 남자가 밥을 먹는다."], ["두 아이"]), [0.5])

    class Same:
        def __len__(self):
            return 3

        def __iter__(self):
            return iter([one] * 3)

    seen = []
    fit(
        tiny_model(),
        [Objective(Same(), CosineSimilarityLoss())],
        Plan(1, learning_rate=1e-12),
        on_step=lambda report: seen.append(report.losses["train"]),
    )
    assert len(set(seen)) == 3, "every step drops something else"


def test_recomputing_activations_changes_nothing(monkeypatch):
    calls = []
    recompute_once = training_step.recompute
    monkeypatch.setattr(
        training_step, "recompute", lambda *rest, **options: calls.append(1) or recompute_once(*rest, **options)
    )
    results = [train(tiny_model(), recompute_activations=False, seed=1)]
    assert not calls
    results.append(train(tiny_model(), recompute_activations=True, seed=1))
    assert calls
    for kept_all, recomputed in zip(*results, strict=True):
        assert recomputed.losses == pytest.approx(kept_all.losses, abs=1e-5)
        assert recomputed.gradient_norms == pytest.approx(kept_all.gradient_norms, rel=1e-3)


def test_bfloat16_products():
    exact = train(tiny_model(**NO_DROPOUT))
    model = tiny_model(**NO_DROPOUT)
    rounded = train(model, autocast="bfloat16")
    assert model.dtype == torch.float32
    assert rounded[0].losses != exact[0].losses
    assert rounded[0].losses["sts"] == pytest.approx(exact[0].losses["sts"], rel=0.05)
    for name, norm in exact[0].gradient_norms.items():
        assert rounded[0].gradient_norms[name] == pytest.approx(norm, rel=0.05)


def test_losses_are_computed_in_full_precision():
    def noting(embeddings, labels):
        seen.append((embeddings[0].dtype, torch.is_autocast_enabled("cpu")))
        return embeddings[0].sum()

    seen = []
    objective = Objective(ShuffledBatches(PAIRS, 4, 1), noting)
    fit(tiny_model(), [objective], Plan(1, max_steps=1, autocast="bfloat16"))
    assert seen == [(torch.float32, False)]


def test_the_optimizer_is_the_one_that_is_asked_for(monkeypatch):

    def noting(model, plan):
        built.append(build_optimizer(model, plan))
        return built[-1]

    built = []
    monkeypatch.setattr(loop, "build_optimizer", noting)
    plan = Plan(1, max_steps=1, learning_rate=1e-3, weight_decay=0.1, optimizer="original-adamw", eps=1e-6)
    fit(tiny_model(), [cosine(), cosine(3)], plan)
    assert [(type(each), each.original_eps, each.decays) for each in built] == [(OriginalAdamW, 1e-6, [0.1, 0.0])] * 2
    assert built[0] is not built[1], "one for each objective"


def test_processes_drop_different_units(monkeypatch):
    seeds = set()
    for rank in range(4):
        monkeypatch.setattr(loop, "process_rank", lambda rank=rank: rank)
        seeds.add(loop.seed_of_dropout(1, 0))
    assert len(seeds) == 4


def test_it_learns():
    examples = [Example((a, b), float(a == b)) for a in SENTENCES for b in SENTENCES]
    losses = []
    fit(
        tiny_model(**NO_DROPOUT),
        [cosine(12, examples)],
        Plan(15, learning_rate=1e-3),
        on_step=lambda report: losses.append(report.losses["sts"]),
    )
    assert np.mean(losses[-3:]) < 0.5 * np.mean(losses[:3])
