"""Proves that JSON is read strictly, that hashes are those of hashlib and git, and that a file is written whole or not."""

import hashlib
import json
import os
import stat

import pytest

from minisbert import files
from minisbert.errors import ModelError, one_line
from minisbert.files import (
    PLAIN_NAME,
    file_hash,
    parse_json,
    parse_json_object,
    read_small_file,
    replacing,
    write_json,
)


def test_json_is_read_as_it_is_written(tmp_path):
    value = {"이름": "밥 😀", "a": [1, -2.5, 1e30, True, None, {"b": {}}]}
    write_json(tmp_path / "a.json", value)
    assert parse_json((tmp_path / "a.json").read_bytes(), "a.json") == value
    assert "밥 😀" in (tmp_path / "a.json").read_text(encoding="utf-8")
    assert parse_json(json.dumps(value).encode(), "escaped") == value  # the face is a pair of surrogates here


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'{"a": 1, "a": 1}', "'a' occurs twice"),
        (b'[{"b": {"a": 1, "c": 2, "a": 3}}]', "'a' occurs twice"),
        (b'{"a": NaN}', "NaN"),
        (b"[-Infinity]", "Infinity"),
        (b"[1e999]", "1e999 is too large"),
        (b"[" * 100_000 + b"]" * 100_000, "recursion"),
        (b"9" * 5000, "digit"),
        (b"\xff{}", "utf-8"),
        ("밥".encode("cp949"), "utf-8"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (rb'["\ud800"]', "surrogates"),
        (rb'{"\uDFFF": 1}', "surrogates"),
        (b"", "line 1"),
        (b"{} {}", "line 1"),
    ],
)
def test_what_is_not_json_is_refused(data, reason):
    with pytest.raises(ModelError, match=r"a\.json: not valid JSON: ") as caught:
        parse_json(data, "a.json")
    assert reason in str(caught.value)
    assert str(caught.value).isprintable()


def test_many_keys_of_which_one_is_double():
    keys = [*range(200_000), 199_999]
    with pytest.raises(ModelError, match="'199999' occurs twice"):
        parse_json(("{" + ",".join(f'"{key}":0' for key in keys) + "}").encode(), "a.json")


@pytest.mark.parametrize("data", [b"[]", b"1", b'"a"', b"null"])
def test_an_object_is_an_object(data):
    with pytest.raises(ModelError, match=r"a\.json: expected a JSON object"):
        parse_json_object(data, "a.json")


def test_files_that_are_too_large_or_no_files(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    assert read_small_file(tmp_path / "a", 5) == b"12345"
    with pytest.raises(ModelError, match="larger than 4 bytes"):
        read_small_file(tmp_path / "a", 4)
    for name in (".", "b", "a/b"):
        with pytest.raises(ModelError, match="cannot be read"):
            read_small_file(tmp_path / name, 5)


@pytest.mark.parametrize("name", ["model.safetensors", "1_Pooling", "0_Transformer", "model-00001-of-00002.safetensors"])
def test_plain_names(name):
    assert PLAIN_NAME.fullmatch(name)


@pytest.mark.parametrize("name", ["", ".", "..", ".git", "a/b", "/a", "a\\b", "C:a", "a\0", "a\n", "밥", "a" * 101])
def test_names_that_are_not_plain(name):
    assert not PLAIN_NAME.fullmatch(name)


def test_the_hash_of_a_file_and_what_git_names_it_by(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "BLOCK", 7)
    for data in (b"", b"1234567", bytes(range(100))):
        (tmp_path / "a").write_bytes(data)
        assert file_hash(tmp_path / "a", "sha256") == hashlib.sha256(data).hexdigest()
        assert file_hash(tmp_path / "a", "sha1") == hashlib.sha1(data).hexdigest()
        assert file_hash(tmp_path / "a", "git") == hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    (tmp_path / "a").write_bytes(b"")
    assert file_hash(tmp_path / "a", "git") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"  # every empty file in git


def test_messages_of_others_become_one_line():
    assert one_line(ValueError("밥\n\x1b[31m" + "a" * 999)) == "밥  [31m" + "a" * 193


@pytest.mark.parametrize("fault", ["in the block", "fsync", "replace"])
def test_a_file_is_replaced_or_left_alone(tmp_path, monkeypatch, fault):
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def fail(*_):
        raise KeyboardInterrupt

    if fault == "fsync":
        monkeypatch.setattr(files.os, "fsync", fail)
    if fault == "replace":
        monkeypatch.setattr(files.Path, "replace", fail)
    with pytest.raises(KeyboardInterrupt), replacing(path) as file:
        file.write(b"new")
        if fault == "in the block":
            fail()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]
    monkeypatch.undo()
    with replacing(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_the_umask_is_followed(tmp_path, umask):
    before = os.umask(umask)
    try:
        write_json(tmp_path / "a.json", {})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == 0o666 & ~umask
