"""Proves that an upload brings a model to the Hub whole and nothing else, and what is said when it cannot, by the real client.

The stand-in Hub is upload_server.py. What was uploaded is read back through `from_pretrained` by its name there.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from minisbert import SentenceEncoder
from tests.storage.hub_client import TOKEN, Worker, check_refused
from tests.storage.upload_server import UploadServer
from tests.tiny import SENTENCES, tiny_folder

READ_ONLY = "hf_readonlyreadonlyreadonlyreadonly00"
CARD = 'SentenceTransformer("team/{}")  # where it lies on the Hub; or: SentenceEncoder.from_pretrained("team/{}")'


@pytest.fixture(scope="module")
def hub():
    server = UploadServer()
    server.owners[TOKEN] = "team"
    yield server
    server.stop()


@pytest.fixture
def server(hub):
    """The server, as empty as at first."""
    for kept in (hub.repositories, hub.requests, hub.stored):
        kept.clear()
    return hub


@pytest.fixture(scope="module")
def start(hub, tmp_path_factory):
    """Starts a client with settings of the environment; without Xet, large files travel as they have always done."""
    home = tmp_path_factory.mktemp("home")
    workers = []

    def start(**environment):
        settings = {"HF_HUB_DISABLE_XET": "1", **environment}
        workers.append(Worker(hub.endpoint, home / str(len(workers)), **settings))
        return workers[-1]

    yield start
    for worker in workers:
        worker.stop()


@pytest.fixture(scope="module")
def client(start):
    return start()


@pytest.fixture
def folder(tmp_path):
    return tiny_folder(tmp_path / "model", normalize=True)


@pytest.fixture
def training(tmp_path):
    """The arguments of a short run."""
    pairs = tmp_path / "pairs.tsv"
    dev = tmp_path / "sts-dev.tsv"
    pairs.write_text("물음\t답\n" + "\n".join(f"{text}\t{text} {text}" for text in SENTENCES), encoding="utf-8")
    rows = [f"{text}\t{other}\t{n % 6}" for n, (text, other) in enumerate(zip(SENTENCES, SENTENCES[::-1], strict=True))]
    dev.write_text("sentence1\tsentence2\tscore\n" + "\n".join(rows), encoding="utf-8")
    output = tmp_path / "out"
    base = tiny_folder(tmp_path / "base")
    files = ["--train", str(pairs), "--dev", str(dev), "--model", str(base), "-o", str(output)]
    return [*files, "--loss", "mnrl", "--batch-size", "3", "--max-steps", "2", "--device", "cpu"]


def output_of(training):
    return Path(training[training.index("-o") + 1])


def lines_of(answer):
    assert TOKEN not in answer["err"]
    return answer["err"].splitlines()


def kinds(server, name):
    return [request.kind for request in server.asked(name)]


@pytest.mark.parametrize("large", [True, False])
def test_what_was_uploaded_computes_the_same(server, start, folder, large, tmp_path, monkeypatch):
    """With Xet, the client has a way of its own, which takes small files to the same commit."""
    monkeypatch.setattr(server, "large_from", server.large_from if large else 10**9)
    client = start(HF_HUB_DISABLE_XET=str(int(large)))
    answer = client.push(folder, "team/model", private=True)
    assert answer == {"url": f"{server.endpoint}/team/model", "exit_code": 0, "warnings": [], "seconds": answer["seconds"]}
    assert ("PUT" in kinds(server, "team/model")) == large
    SentenceEncoder.from_pretrained(folder, device="cpu").save_pretrained(tmp_path / "saved")
    saved = {path.relative_to(tmp_path / "saved").as_posix() for path in (tmp_path / "saved").rglob("*") if path.is_file()}
    repository = server.repositories["team/model"]
    assert set(repository.files) == {".gitattributes", *saved}
    assert repository.private
    back = client.download("team/model")["folder"]
    vectors = [SentenceEncoder.from_pretrained(each, device="cpu").encode(SENTENCES) for each in (folder, back)]
    np.testing.assert_array_equal(*vectors)


def test_a_repository_is_made_as_the_hub_makes_them_unless_private_is_asked_for(server, client, folder):
    assert client.push(folder, "team/open")["exit_code"] == 0
    assert not server.repositories["team/open"].private
    assert client.push(folder, "team/open", private=True)["warnings"] == [
        "team/open is there already, and public: what is uploaded will be public"
    ]


def test_a_branch_is_made(server, client, folder):
    for _ in range(2):
        assert client.push(folder, "team/model", revision="v2")["exit_code"] == 0
    assert "v2" in server.repositories["team/model"].branches
    assert client.download("team/model@v2")["exit_code"] == 0


def test_a_card_that_is_there_stays(server, client, folder):
    server.add("team/model", {"README.md": b"mine"})
    assert client.push(folder, "team/model")["exit_code"] == 0
    assert server.repositories["team/model"].files["README.md"] == b"mine"


def test_no_right_to_write(server, client, folder):
    server.add("other/model", {"README.md": b"theirs"})
    server.add("team/model", {})
    server.owners[READ_ONLY] = ""
    for name, token in (("other/new", None), ("other/model", None), ("team/model", READ_ONLY)):
        line = check_refused(client.push(folder, name, token=token))
        expected = "your token has no right to this; check the owner's name, or pass a token that has the right"
        assert line == f"{name}: {expected}"
        assert not {"preupload", "batch", "commit"} & set(kinds(server, name))
    assert server.repositories["other/model"].files == {"README.md": b"theirs"}
    check_refused(client.push(folder, "team/model", token="hf_wrong"), "the token was refused; log in again")
    check_refused(client.push(folder, "team/model", token=""), "the token is empty")


def test_a_name_that_is_none(server, client, folder):
    for name in ("model", "team/model@v1", "https://huggingface.co/team/model", ""):
        answer = client.push(folder, name)
        assert (answer["exit_code"], answer["error"]) == (
            2,
            f"{name!r} is not the name of a model on the Hub; expected OWNER/NAME",
        )
    check_refused(client.push(folder, "team/a--b"), "team/a--b: not a valid model name")
    assert not server.requests


def test_a_step_that_fails_once_is_repeated(server, client, folder):
    faults = {"create": 503, "auth-check": "dead", "preupload": "dead", "batch": 503, "PUT": "dead", "commit": 503}
    repository = server.add("team/model", {})
    for kind, fault in faults.items():
        repository.faults[kind].append(fault)
    answer = client.push(folder, "team/model")
    assert (answer["exit_code"], [kind for kind in faults if repository.faults[kind]]) == (0, [])
    assert "model.safetensors" in repository.files


def test_training_ends_with_an_upload(server, client, training):
    output = output_of(training)
    output.mkdir()
    (output / "비밀.txt").write_text("내 것", encoding="utf-8")
    answer = client.train(*training, "--overwrite", "--push", "team/pets")
    assert answer["exit_code"] == 0, answer
    assert lines_of(answer)[-1] == f"train.py: uploaded: {server.endpoint}/team/pets"
    repository = server.repositories["team/pets"]
    assert repository.private, "the card quotes the data"
    written = {path.relative_to(output).as_posix(): path.read_bytes() for path in output.rglob("*") if path.is_file()}
    left_out = {"비밀.txt", "metrics.jsonl", *(name for name in written if name.startswith("tensorboard/"))}
    assert repository.files.keys() - {".gitattributes"} == written.keys() - left_out
    assert {"README.md", "training.json", "eval/similarity_evaluation_sts-dev_results.csv"} <= repository.files.keys()
    assert all(written[name] == data for name, data in repository.files.items() if name != ".gitattributes")
    assert CARD.format("pets", "pets") in repository.files["README.md"].decode()
    order = kinds(server, "team/pets")
    assert order.index("auth-check") < order.index("commit") and order.count("commit") == 1


def test_nothing_is_sent_unasked(server, client, training):
    assert client.train(*training)["exit_code"] == 0
    assert server.requests == []
    assert 'SentenceTransformer("OWNER/NAME")' in (output_of(training) / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("environment", "name", "code", "expected"),
    [
        (
            {"HF_TOKEN": ""},
            "team/pets",
            4,
            "team/pets: a token is required, and this machine has none; log in with `hf auth login`",
        ),
        ({"HF_TOKEN": "hf_wrong"}, "team/pets", 4, "team/pets: the token was refused; log in again or pass another"),
        ({}, "other/pets", 4, "other/pets: your token has no right to this; check the owner's name, or pass a token"),
        ({"HF_HUB_OFFLINE": "1"}, "team/pets", 4, "team/pets: nothing can be uploaded while HF_HUB_OFFLINE is set; unset it"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "team/pets", 4, "team/pets: the Hub cannot be reached (ConnectError); check"),
        ({}, "pets", 2, "'pets' is not the name of a model on the Hub; expected OWNER/NAME"),
    ],
)
def test_what_would_keep_the_upload_from_succeeding_shows_before_training(
    server, start, training, environment, name, code, expected
):
    answer = start(**environment).train(*training, "--push", name)
    assert answer["exit_code"] == code
    assert lines_of(answer)[-1].startswith(f"train.py: {expected}")
    assert not (output_of(training) / "metrics.jsonl").exists()
    assert not server.repositories


def test_a_network_that_goes_away_costs_no_training(server, client, training):
    server.add("team/pets", {}, private=True).faults["commit"] += ["dead", "for ever"]
    answer = client.train(*training, "--push", "team/pets")
    output = output_of(training)
    assert answer["exit_code"] == 4
    assert lines_of(answer)[-1] == (
        "train.py: team/pets: the Hub cannot be reached (RemoteProtocolError); check the network or try later; the model is in "
        f"{output}: the same command with --resume uploads it"
    )
    trained = SentenceEncoder.from_pretrained(output, device="cpu").encode(SENTENCES)
    steps = (output / "metrics.jsonl").read_bytes()
    server.repositories["team/pets"].faults.clear()
    answer = client.train(*training, "--push", "team/pets", "--resume")
    assert answer["exit_code"] == 0
    assert lines_of(answer)[-1] == f"train.py: uploaded: {server.endpoint}/team/pets"
    assert (output / "metrics.jsonl").read_bytes() == steps, "not trained again"
    back = client.download("team/pets")["folder"]
    np.testing.assert_array_equal(SentenceEncoder.from_pretrained(back, device="cpu").encode(SENTENCES), trained)


def test_a_run_that_was_finished_without_an_upload_can_be_uploaded(server, client, training):
    assert client.train(*training)["exit_code"] == 0
    assert client.train(*training, "--resume", "--push", "team/later")["exit_code"] == 0
    assert CARD.format("later", "later") in server.repositories["team/later"].files["README.md"].decode()
    assert json.loads(server.repositories["team/later"].files["training.json"])["flags"]["loss"] == "mnrl"
