"""Proves that a download ends with the right bytes or with one line of error, whatever the server does.

The server is one on the loopback interface, with faults that tests turn on.
"""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from minisbert.errors import HubError, InputError
from minisbert.training import corpora
from minisbert.training.corpora import COMMIT, STS_TRAIN, CorpusFile, download, find_kor_nlu, load_nli
from minisbert.training.examples import read_examples

CONTENTS = ("문장 하나\t문장 둘\tneutral\n" * 9000).encode()
FILE = CorpusFile("KorNLI/small.tsv", hashlib.sha1(b"blob %d\0" % len(CONTENTS) + CONTENTS).hexdigest())


class Server(ThreadingHTTPServer):
    """Answers the n-th request by the n-th of `faults`: a status, "close" (at 40 %), "wrong", "no range", "no length"."""

    daemon_threads = True
    block_on_close = False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.faults, self.asked = [], []
        self.address = f"http://127.0.0.1:{self.server_port}/datasets"
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def handle_error(self, request, client_address):
        pass


class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        fault = self.server.faults.pop(0) if self.server.faults else None
        self.server.asked.append((self.path, self.headers.get("Range")))
        body, begin = CONTENTS, 0
        if isinstance(fault, int):
            return self.send_error(fault)
        if self.headers.get("Range") and fault != "no range":
            begin = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            if begin >= len(body):
                return self.send_error(416)
        body = body[begin:] if fault != "wrong" else b"x" * len(body[begin:])
        self.send_response(206 if begin else 200)
        if fault != "no length":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) * 2 // 5] if fault == "close" else body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(corpora, "PAUSE", 0.001)
    server = Server()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def fetch(server, tmp_path):
    """Downloads FILE; returns what was reported."""

    def fetch(*faults, file=FILE):
        server.faults[:] = faults
        seen = []
        download((file,), tmp_path, lambda *report: seen.append(report), server.address)
        assert (tmp_path / file.path).read_bytes() == CONTENTS
        return seen

    return fetch


def left_in(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_download_and_not_again(fetch, server, tmp_path):
    seen = fetch()
    assert seen[-1] == (FILE.path, len(CONTENTS), len(CONTENTS))
    assert [have for _, have, _ in seen] == sorted(have for _, have, _ in seen)
    assert left_in(tmp_path) == ["small.tsv"]
    fetch()
    assert len(server.asked) == 1
    assert COMMIT in server.asked[0][0]


def test_a_broken_download_goes_on_where_it_stopped(fetch, server):
    fetch("close", "close", None)
    have = len(CONTENTS) * 2 // 5
    more = have + (len(CONTENTS) - have) * 2 // 5
    assert [range for _, range in server.asked] == [None, f"bytes={have}-", f"bytes={more}-"]


def test_servers_that_answer_otherwise(fetch, server, tmp_path):
    for faults in (("close", "no range"), (503, 500, None), ("no length",)):
        seen = fetch(*faults)
        (tmp_path / FILE.path).unlink()
        assert seen[-1][1:] == (len(CONTENTS), 0 if "no length" in faults else len(CONTENTS))


def test_what_is_whole_already_is_not_fetched_again(fetch, server, tmp_path):
    (tmp_path / "KorNLI").mkdir()
    (tmp_path / f"{FILE.path}.part").write_bytes(CONTENTS)
    fetch()
    assert [range for _, range in server.asked] == [f"bytes={len(CONTENTS)}-"]


def test_wrong_bytes_are_refused(fetch, tmp_path):
    with pytest.raises(HubError, match=r"small\.tsv: what was downloaded is not the file of commit"):
        fetch("wrong")
    assert left_in(tmp_path) == []
    with pytest.raises(HubError, match="wrong hash"):
        fetch("close", "wrong")
    fetch()


def test_a_file_with_other_contents_is_replaced(fetch, tmp_path):
    (tmp_path / "KorNLI").mkdir()
    (tmp_path / FILE.path).write_bytes(CONTENTS[:-1] + b"x")
    fetch()


@pytest.mark.parametrize("fault", [503, "close"])
def test_a_server_that_never_delivers(fault, fetch, server, tmp_path):
    with pytest.raises(HubError, match=r"the server answers 503|cannot be downloaded") as caught:
        fetch(*[fault] * 9)
    assert caught.value.exit_code == 4
    assert len(server.asked) == corpora.ATTEMPTS
    assert "small.tsv" not in left_in(tmp_path)


def test_errors_that_another_attempt_will_not_cure(fetch, server):
    with pytest.raises(HubError, match="the server answers 404; download it by hand, use --data"):
        fetch(404)
    assert len(server.asked) == 1


def test_no_server(tmp_path, server):
    server.shutdown()
    server.server_close()
    with pytest.raises(HubError, match="see to the network, or use --data DIR"):
        download((FILE,), tmp_path, lambda *_: None, server.address)


STS = "genre\tfilename\tyear\tid\tscore\tsentence1\tsentence2\nnews\ta\t2024\t1\t2.5\t가\t나\n"
NLI = "sentence1\tsentence2\tgold_label\n개가 뛴다\t동물이 움직인다\tentailment\n개가 뛴다\t개가 잔다\tcontradiction\n"


def test_the_folder_and_what_is_read_from_it(tmp_path):
    with pytest.raises(InputError, match="no KorSTS folder in it"):
        find_kor_nlu(tmp_path)
    folder = tmp_path / "kor-nlu-datasets"
    for name, text in {
        "KorSTS/sts-train.tsv": STS,
        "KorNLI/xnli.dev.ko.tsv": NLI,
        "KorNLI/multinli.train.ko.tsv": NLI.replace("개", "소"),
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    assert find_kor_nlu(tmp_path) == find_kor_nlu(folder) == folder
    assert [example.label for example in read_examples(folder / STS_TRAIN.path)] == [0.5]
    note = r"^snli_1\.0_train\.ko\.tsv not found; training on xnli\.dev\.ko\.tsv instead, which are far smaller$"
    with pytest.warns(UserWarning, match=note):
        examples, paths = load_nli(folder, 1, None)
    assert len(examples) == 2
    (folder / "KorNLI" / "snli_1.0_train.ko.tsv").write_text(NLI, encoding="utf-8")
    examples, paths = load_nli(folder, 1, None)
    assert len(examples) == 4
    assert [path.name for path in paths] == ["snli_1.0_train.ko.tsv", "multinli.train.ko.tsv"]
    for path in (folder / "KorNLI").iterdir():
        path.unlink()
    with pytest.raises(InputError, match=r"snli_1\.0_train\.ko\.tsv, multinli\.train\.ko\.tsv not found; leave out --data"):
        load_nli(folder, 1, None)
