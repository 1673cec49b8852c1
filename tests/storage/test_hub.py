"""Proves what minisbert.storage.hub makes of a Hub that fails, lies or hangs: H1 to H13, with the real client.

The stand-in Hub is hub_server.py. The client reads its settings when it is imported, so it runs in processes of its own: a
few workers (hub_worker.py) that last for the whole file and take orders one line at a time.
"""

import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minisbert import SentenceEncoder
from minisbert.errors import HubError
from minisbert.storage import hub
from tests.storage.hub_client import PROJECT, TOKEN, Worker, check_refused, clean_environment
from tests.storage.hub_server import HubServer
from tests.tiny import tiny_folder

TEXT = "고양이가 길에서 물을 마신다."
BIG = 33 * 2**20  # bytes of weights: more than the client fetches at once, and than is hashed before every use


@pytest.fixture(scope="module")
def server():
    server = HubServer()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home") / "hf"


@pytest.fixture(scope="module")
def client(server, home):
    worker = Worker(server.endpoint, home)
    yield worker
    worker.stop()


@pytest.fixture(scope="module")
def second_client(server, home, client):
    worker = Worker(server.endpoint, home)
    yield worker
    worker.stop()


@pytest.fixture(scope="module")
def offline_client(home, client):
    worker = Worker("http://127.0.0.1:9", home, HF_HUB_OFFLINE="1")
    yield worker
    worker.stop()


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> dict[str, bytes]:
    """The files of a tiny model: weights of some 70 kB, the rest small."""
    folder = tiny_folder(tmp_path_factory.mktemp("model") / "m")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.*"))}


@pytest.fixture(scope="module")
def big_model(model) -> dict[str, bytes]:
    """As many bytes as weights could be; no tensors."""
    return {**model, "model.safetensors": random.Random(0).randbytes(BIG)}


def expected_vector(model: dict[str, bytes], folder: Path) -> np.ndarray:
    for name, data in model.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return SentenceEncoder.from_pretrained(folder, device="cpu").encode(TEXT)


def check_vector(answer: dict[str, Any], model: dict[str, bytes], folder: Path) -> None:
    assert answer["exit_code"] == 0, answer
    np.testing.assert_allclose(json.loads(answer["out"])["embedding"], expected_vector(model, folder), atol=1e-5)


def check_files(answer: dict[str, Any], files: dict[str, bytes]) -> None:
    assert answer["exit_code"] == 0, answer
    for name, data in files.items():
        assert (Path(answer["folder"]) / name).read_bytes() == data, name


def test_H1_offline_after_a_cold_download(client, offline_client, server, model, tmp_path):
    server.add("owner/h1", model)
    check_vector(client.encode("-m", "owner/h1", "--quiet", "-o", "-", TEXT), model, tmp_path / "m")
    asked = len(server.asked("owner/h1"))
    for other, flags in ((offline_client, ()), (client, ("--local-files-only",))):
        answer = other.encode("-m", "owner/h1", "--quiet", "-o", "-", *flags, TEXT, forbid=["sockets"])
        check_vector(answer, model, tmp_path / "m")
    assert len(server.asked("owner/h1")) == asked


def test_H1_offline_without_a_copy(client, offline_client):
    check_refused(offline_client.encode("-m", "owner/never", TEXT, forbid=["sockets"]), "not in the local cache")
    check_refused(client.download("owner/never", local_files_only=True, forbid=["sockets"]), "not in the local cache")


def test_H2_a_commit_in_the_cache_needs_no_request(client, server, model):
    commit = server.add("owner/h2", model).commit
    check_files(client.download(f"owner/h2@{commit}"), model)
    asked = len(server.asked("owner/h2"))
    check_files(client.download(f"owner/h2@{commit}", forbid=["sockets"]), model)
    check_files(client.download("owner/h2", revision=commit, forbid=["sockets"]), model)
    assert len(server.asked("owner/h2")) == asked


def test_H2_a_commit_of_a_plain_model_needs_no_request_either(client, server, model):
    files = {name: data for name, data in model.items() if name != "modules.json"}
    commit = server.add("owner/h2plain", files).commit
    check_files(client.download(f"owner/h2plain@{commit}"), files)
    check_files(client.download(f"owner/h2plain@{commit}", forbid=["sockets"]), files)


def test_H2_a_copy_that_others_made_without_modules_is_completed(client, server, model):
    commit = server.add("owner/h2other", model).commit
    folder = Path(client.download("owner/h2other")["folder"])
    shutil.rmtree(folder.parent.parent / ".minisbert")
    (folder / "modules.json").unlink()
    check_files(client.download(f"owner/h2other@{commit}"), model)


def test_H3_five_reasons_five_messages(client, server, model):
    weightless = {name: data for name, data in model.items() if name != "model.safetensors"}
    server.add("owner/h3", model)
    server.add("owner/h3file", weightless, listed=["model.safetensors"])
    server.add("owner/h3gated", model, status=403, error={"X-Error-Code": "GatedRepo"})
    bad_token = {"X-Error-Message": "Invalid credentials in Authorization header"}
    server.add("owner/h3token", model, status=401, error=bad_token)
    reasons = {
        "owner/h3file": "model.safetensors: the repository lists this file but does not deliver it",
        "owner/h3@v9": "this revision does not",
        "owner/h3unknown": "no such model on the Hub",
        "owner/h3gated": "access is gated",
        "owner/h3token": "the token was refused",
    }
    for source, reason in reasons.items():
        answer = client.encode("-m", source, TEXT)
        assert check_refused(answer, source.partition("@")[0], reason).startswith("encode.py: ")
        assert answer["seconds"] < 5, "a refusal is not tried again"


def test_H3_repository_without_needed_files(client, server, model):
    for absent, reason in (("model.safetensors", "incomplete"), ("config.json", "no transformers model")):
        name = f"owner/h3without-{absent}"
        server.add(name, {file: data for file, data in model.items() if file != absent})
        check_refused(client.download(name), f"has no {absent}", reason)


@pytest.mark.parametrize("token", ["", f"{TOKEN}\n", f"{TOKEN} 비밀"])
def test_H3_a_token_that_no_header_can_carry(client, server, model, token):
    server.add("owner/h3odd", model)
    check_refused(client.download("owner/h3odd", token=token), "the token is empty or has characters")


@pytest.mark.parametrize("kind", ["list", "HEAD", "GET"])
def test_H4_503_twice_then_ok(client, server, model, kind):
    repository = server.add(f"owner/h4{kind}", model)
    repository.faults[kind] += [503, 503]
    check_files(client.download(f"owner/h4{kind}"), model)
    assert repository.faults[kind] == []


@pytest.mark.parametrize("fault", ["close", "reset"])
def test_H5_connection_lost_at_40_percent(client, server, big_model, fault):
    repository = server.add(f"owner/h5{fault}", big_model)
    repository.faults["GET"] += [None] * (len(big_model) - 1) + [fault]
    check_files(client.download(f"owner/h5{fault}"), big_model)
    ranges = [request.headers.get("range") for request in server.asked(f"owner/h5{fault}") if request.kind == "GET"]
    if fault == "close":
        assert ranges[-1] == f"bytes={10 * 2**20}-", "the client goes on where it was"


def test_H6_server_dies_for_good(client, server, model):
    repository = server.add("owner/h6", model)
    repository.faults["GET"] += [None] * (len(model) - 1) + ["reset"]
    repository.faults["GET"] += ["dead", "for ever"]
    answer = client.download("owner/h6", timeout=4)
    check_refused(answer, "model.safetensors: the Hub cannot be reached")
    assert answer["seconds"] < 6
    check_no_weights(client, "owner/h6")
    repository.faults.clear()
    check_files(client.download("owner/h6"), model)


@pytest.mark.parametrize(("kind", "fault"), [("list", "silence"), ("HEAD", "silence"), ("GET", "silence"), ("GET", "drip")])
def test_H6_server_that_never_finishes(client, server, model, kind, fault):
    name = f"owner/h6{kind}{fault}"
    repository = server.add(name, model)
    repository.faults[kind] += [fault, "for ever"]
    answer = client.download(name, timeout=2)
    check_refused(answer, "the Hub cannot be reached")
    assert answer["seconds"] < 3
    check_no_weights(client, name)


def test_H6_exit_code_and_one_line_of_the_real_command(server, model, tmp_path):
    """The server stays silent as long as the tests run: that the command ends shows that it does not wait for an answer."""
    server.add("owner/h6command", model).faults["list"] += ["silence", "for ever"]
    command = [sys.executable, "encode.py", "-m", "owner/h6command", "--hub-timeout", "1", TEXT]
    settings = {"HF_ENDPOINT": server.endpoint, "HF_HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=PROJECT, env=clean_environment() | settings, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (4, "")
    assert re.fullmatch(
        r"encode.py: owner/h6command@main: the Hub cannot be reached \(not done within \d s\), and the model is not in the "
        r"local cache; check the network or try later\n",
        done.stderr,
    )
    kinds = [request.kind for request in server.asked("owner/h6command")]
    assert kinds in ([], ["list"]), "asked once, or not at all where a second has gone by before"


def test_H7_wrong_bytes_of_the_right_size(client, server, model):
    repository = server.add("owner/h7", model)
    repository.faults["GET"] += ["wrong", "for ever"]
    check_refused(client.download("owner/h7"), "wrong hash")
    assert not [file for file in client.files("owner/h7") if file.startswith(("blobs", "snapshots"))]
    repository.faults.clear()
    check_files(client.download("owner/h7"), model)


def test_H7_wrong_bytes_once_are_fetched_again(client, server, model):
    server.add("owner/h7once", model).faults["GET"] += [None, "wrong"]
    check_files(client.download("owner/h7once"), model)


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "1_Pooling/config.json"])
@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_H8_damage_on_disk(client, server, model, file, damage):
    name = f"owner/h8{damage}{file.partition('.')[0].replace('/', '')}"
    commit = server.add(name, model).commit
    path = Path(client.download(name)["folder"]) / file

    def spoil() -> None:
        times = path.stat().st_atime_ns, path.stat().st_mtime_ns
        data = model[file]
        path.write_bytes(data[: len(data) // 2] + (b"" if damage == "cut" else bytes([data[-1] ^ 1]) * (len(data) // 2)))
        os.utime(path, ns=times)  # as a failing disk would leave it

    spoil()
    refused = client.download(name, local_files_only=True)
    check_refused(refused, f"damaged in the local cache ({file} has changed)")
    server.repositories[name].faults["HEAD"] += [503, 503]
    check_files(client.download(f"{name}@{commit}"), model)  # repaired
    spoil()
    check_files(client.download(name), model)


def test_H8_damage_to_a_large_file(client, server, big_model):
    server.add("owner/h8big", big_model)
    path = Path(client.download("owner/h8big")["folder"]) / "model.safetensors"
    with path.open("rb+") as file:
        file.seek(BIG // 2)
        file.write(b"damage")
    check_refused(client.download("owner/h8big", local_files_only=True), "damaged", "model.safetensors")
    check_files(client.download("owner/h8big"), big_model)


def test_H9_partial_copy_and_no_answer(client, server, model):
    repository = server.add("owner/h9", model)
    folder = Path(client.download("owner/h9")["folder"])
    shutil.rmtree(folder.parent.parent / ".minisbert")
    repository.faults["list"] += [503, "for ever"]
    for file in ("model.safetensors", "1_Pooling/config.json"):
        (folder / file).unlink()
        answer = client.encode("-m", "owner/h9", "--hub-timeout", "2", TEXT)
        check_refused(answer, "status 503", f"incomplete in the local cache ({file} is missing)")


def test_H9_a_whole_copy_stands_in_for_a_hub_that_is_down(client, server, model, tmp_path):
    server.add("owner/h9whole", model)
    client.download("owner/h9whole")
    server.repositories["owner/h9whole"].faults["list"] += [503, "for ever"]
    answer = client.encode("-m", "owner/h9whole", "-o", "-", TEXT)
    check_vector(answer, model, tmp_path / "m")
    assert "note: owner/h9whole@main: the Hub cannot be reached (status 503); the copy in the local cache" in answer["err"]
    assert answer["seconds"] < 5


@pytest.mark.parametrize("name", ["../evil", "1_Pooling/../../../evil", "/tmp/evil", "..\\evil", "C:evil"])
def test_H10_names_that_leave_the_folder(client, server, model, home, name):
    server.add("owner/h10", model, listed=[name])
    before = sorted(home.parent.rglob("*"))
    check_refused(client.download("owner/h10"), "which is not inside it")
    assert sorted(home.parent.rglob("*")) == before


def test_H10_revision_that_leaves_the_folder(client):
    for revision in ("../../../evil", "a\0b", "a\nb", "a\udce9"):
        check_refused(client.download("owner/h10", revision=revision), "not a valid revision")


def test_H11_no_token_for_another_origin(client, server, model):
    server.add("owner/h11", model)
    check_files(client.download("owner/h11"), model)
    requests = server.asked("owner/h11")
    elsewhere = [request for request in requests if request.port == server.port_of_storage]
    assert [request.file for request in elsewhere] == ["model.safetensors"]
    assert not any("authorization" in request.headers for request in elsewhere)
    assert not any(TOKEN in value for request in elsewhere for value in request.headers.values())
    at_home = [request for request in requests if request not in elsewhere]
    assert {request.headers.get("authorization") for request in at_home} == {f"Bearer {TOKEN}"}


@pytest.mark.parametrize("header", ["X-Repo-Commit", "ETag"])
def test_H12_missing_headers(client, server, model, header):
    name = f"owner/h12{header}"
    server.add(name, {file: data for file, data in model.items() if len(data) < 20_000}, without=(header,))
    check_refused(client.download(name), "gives no commit or no hash", "HF_ENDPOINT")


@pytest.mark.parametrize("there", [False, True])
def test_H10_a_hash_that_leaves_the_cache(client, server, model, home, there):
    victim = home / "hub" / f"victim{there}"  # from models--owner--h10etag/blobs
    if there:
        victim.write_bytes(b"mine")
    server.add(f"owner/h10etag{there}", model, headers={"ETag": f'"../../{victim.name}"'})
    check_refused(client.download(f"owner/h10etag{there}"), "leads out of the cache")
    if there:
        assert victim.read_bytes() == b"mine"


def test_H12_a_commit_that_is_none(client, server, model):
    server.add("owner/h12commit", model, headers={"X-Repo-Commit": ".."})
    check_refused(client.download("owner/h12commit"), "HF_ENDPOINT")


def test_H9_a_dangling_link_is_a_missing_file(client, server, model):
    server.add("owner/h9link", model)
    vocabulary = Path(client.download("owner/h9link")["folder"]) / "vocab.txt"
    vocabulary.resolve().unlink()
    shutil.rmtree(client.cache / "models--owner--h9link" / ".minisbert")  # as if others had filled the cache
    check_files(client.download("owner/h9link", local_files_only=True), {k: v for k, v in model.items() if k != "vocab.txt"})
    check_files(client.download("owner/h9link"), model)


def test_H12_server_that_ignores_range(client, server, big_model):
    repository = server.add("owner/h12range", big_model, ignore_range=True)
    repository.faults["GET"] += [None] * (len(big_model) - 1) + ["close"]
    check_files(client.download("owner/h12range"), big_model)


@pytest.mark.parametrize(
    "body",
    [
        b"<html>log in to the hotel</html>",
        b"[]",
        b'{"siblings": [{}]}',
        b'{"siblings": [{"rfilename": "config.json", "size": "7"}]}',
        b'{"siblings": []}',
        b"[" * 100_000,
    ],
)
def test_H12_something_else_answers(client, server, model, body):
    server.add("owner/h12html", model, list_body=body)
    check_refused(client.download("owner/h12html"), "check", "HF_ENDPOINT")


def test_H13_no_links_allowed(client, server, model, tmp_path):
    server.add("owner/h13links", model)
    arguments = ("-m", "owner/h13links", "--quiet", "-o", "-")
    check_vector(client.encode(*arguments, TEXT, forbid=["links"]), model, tmp_path / "m")
    check_vector(client.encode(*arguments, "--local-files-only", TEXT, forbid=["links"]), model, tmp_path / "m")
    folder = Path(client.download("owner/h13links", local_files_only=True)["folder"])
    assert not any(path.is_symlink() for path in folder.rglob("*"))
    (folder / "tokenizer.json").write_bytes(model["tokenizer.json"].replace(b"0", b"1"))
    check_refused(client.download("owner/h13links", local_files_only=True), "damaged", "tokenizer.json")
    check_files(client.download("owner/h13links", forbid=["links"]), model)


def test_H13_read_only_cache_holding_everything(client, server, model):
    server.add("owner/h13read", model)
    folder = Path(client.download("owner/h13read")["folder"])
    for record in ("kept", "lost"):
        check_files(client.download("owner/h13read", forbid=["writes"]), model)
        check_files(client.download("owner/h13read", local_files_only=True, forbid=["writes"]), model)
        assert (folder.parent.parent / ".minisbert").exists() == (record == "kept")
        shutil.rmtree(folder.parent.parent / ".minisbert", ignore_errors=True)


def test_H13_two_processes_at_once(client, second_client, server, big_model):
    server.add("owner/h13two", big_model)
    both = (client, second_client)
    for worker in both:
        worker.send(source="owner/h13two")
    for worker in both:
        check_files(worker.receive(), big_model)
    assert not [file for file in client.files("owner/h13two") if file.endswith((".incomplete", ".part", ".tmp"))]


def test_a_branch_that_moves_is_followed(client, server, model):
    first = server.add("owner/moves", model).commit
    assert Path(client.download("owner/moves")["folder"]).name == first
    changed = {**model, "README.md": b"new", "vocab.txt": model["vocab.txt"] + b"\n##zzz"}
    second = server.add("owner/moves", changed)
    second.faults["GET"] += ["dead", "for ever"]
    answer = client.download("owner/moves", timeout=3)  # the older copy stands in
    assert (Path(answer["folder"]).name, len(answer["warnings"])) == (first, 1)
    second.faults.clear()
    assert Path(client.download("owner/moves")["folder"]).name == second.commit
    assert Path(client.download("owner/moves", local_files_only=True)["folder"]).name == second.commit


def test_weights_in_shards(client, server, model):
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    shards = {name: name.encode() * 1000 for name in index["weight_map"].values()}
    files = {name: data for name, data in model.items() if name != "model.safetensors"}
    files |= {"model.safetensors.index.json": json.dumps(index).encode(), **shards}
    server.add("owner/shards", files)
    folder = Path(client.download("owner/shards")["folder"])
    check_files(client.download("owner/shards", local_files_only=True), files)
    (folder / "model-00002-of-00002.safetensors").unlink()
    check_refused(client.download("owner/shards", local_files_only=True), "model-00002-of-00002.safetensors is missing")
    files["model.safetensors.index.json"] = b'{"weight_map": {"a": "../evil"}}'
    server.add("owner/shards", files)
    answer = client.download("owner/shards")
    assert (answer["exit_code"], "names the file '../evil'" in answer["error"]) == (3, True)


def test_what_large_files_come_by_may_fail_in_ways_of_its_own(monkeypatch):
    """Xet, by which the real Hub sends large files, raises RuntimeError; whatever else is raised is no answer of a Hub."""

    def failing(error, times):
        failures = [error] * times

        def request():
            if failures:
                raise failures.pop()
            return "done"

        return hub.ask(request, "owner/name@main", time.monotonic() + 60)

    monkeypatch.setattr(hub, "FIRST_PAUSE", 0.001)
    lost = RuntimeError("Data processing error: CAS service error")
    assert failing(lost, hub.ATTEMPTS - 1) == "done"
    with pytest.raises(hub.Unreachable, match=r"cannot be reached \(RuntimeError\)"):
        failing(lost, hub.ATTEMPTS)
    for error in (ValueError("Invalid pointer path"), RecursionError(), Exception("Invalid URL")):
        with pytest.raises(HubError, match="not a Hugging Face Hub"):
            failing(error, 1)


def check_no_weights(client: Worker, name: str) -> None:
    files = client.files(name)
    assert not [file for file in files if file.endswith((".incomplete", "model.safetensors"))], files
