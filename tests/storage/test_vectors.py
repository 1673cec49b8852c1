"""Proves that the written files are what their readers expect, and that nothing half-written is seen or taken up."""

import json
import os
import stat

import numpy as np
import pytest
import safetensors
from safetensors.numpy import load_file

from minisbert.errors import InputError
from minisbert.storage.vectors import VectorFile, check_output, json_line

FORMS = ["npy", "npz", "safetensors", "jsonl"]
RUN = {"weights": "abc", "max_length": 128, "prompt": None}
TEXTS = ["밥", "빵", "", "줄\n바꿈", '따옴표 "']
VECTORS = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)


def load(path):
    """The vectors of a file of any form."""
    if path.suffix == ".jsonl":
        return np.array([json.loads(line)["embedding"] for line in path.read_bytes().splitlines()], dtype=np.float32)
    if path.suffix == ".safetensors":
        return load_file(path)["embeddings"]
    return np.load(path) if path.suffix == ".npy" else np.load(path)["embeddings"]


def write(path, *blocks):
    """Write the rows begin:end of each block."""
    output = VectorFile(path)
    for begin, end in blocks:
        output.append(TEXTS[begin:end], VECTORS[begin:end])
        output.note(RUN)
    return output


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("blocks", [[(0, 5)], [(0, 2), (2, 4), (4, 5)]])
def test_rows_come_back_to_the_bit(tmp_path, form, blocks):
    path = tmp_path / f"벡터.{form}"
    output = write(path, *blocks)
    assert not path.exists()
    output.finish(3)
    np.testing.assert_array_equal(load(path), VECTORS)
    assert list(tmp_path.iterdir()) == [path]
    if form == "jsonl":
        assert [json.loads(line)["text"] for line in path.read_bytes().splitlines()] == TEXTS


@pytest.mark.parametrize("form", FORMS)
def test_the_blocks_do_not_show_in_the_file(tmp_path, form):
    one, many = tmp_path / f"a.{form}", tmp_path / f"b.{form}"
    write(one, (0, 5)).finish(3)
    write(many, (0, 1), (1, 4), (4, 5)).finish(3)
    assert one.read_bytes() == many.read_bytes()


def test_headers_are_those_of_the_formats(tmp_path):
    write(tmp_path / "a.npy", (0, 5)).finish(3)
    write(tmp_path / "a.safetensors", (0, 5)).finish(3)
    array = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert (array.dtype, array.offset % 64, array.flags.c_contiguous) == (np.float32, 0, True)
    with safetensors.safe_open(tmp_path / "a.safetensors", "numpy") as file:
        assert list(file.keys()) == ["embeddings"]


def test_the_file_has_the_mode_that_the_user_wants(tmp_path):
    mask = os.umask(0o027)
    try:
        write(tmp_path / "a.npy", (0, 5)).finish(3)
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "a.npy").stat().st_mode) == 0o640


def test_every_float32_survives_json():
    numbers = np.array([np.pi, 1e-45, 3.4028235e38, -0.0, 1 / 3, 16777217], dtype=np.float32)
    again = np.array(json.loads(json_line("밥", numbers))["embedding"], dtype=np.float32)
    np.testing.assert_array_equal(again, numbers)


@pytest.mark.parametrize("form", FORMS)
def test_a_closed_file_is_resumed_after_the_last_note(tmp_path, form):
    path, whole = tmp_path / f"a.{form}", tmp_path / f"b.{form}"
    write(whole, (0, 5)).finish(3)
    output = write(path, (0, 2))
    output.append(TEXTS[2:4], VECTORS[2:4])  # not noted
    assert output.close()
    assert not path.exists()

    output = VectorFile(path)
    texts = iter(TEXTS)
    assert output.resume(RUN, texts) == 2
    output.append(list(texts), VECTORS[2:])
    output.finish(3)
    assert path.read_bytes() == whole.read_bytes()


def test_other_texts_are_not_mixed_in(tmp_path):
    write(tmp_path / "a.npy", (0, 2)).close()
    for texts in (["밥빵", ""], ["", "밥빵"], ["밥"], ["빵", "밥"]):
        output = VectorFile(tmp_path / "a.npy")
        with pytest.raises(InputError, match="the input is not that of the interrupted run"):
            output.resume(RUN, iter(texts))
        assert output.close() == 2


def test_another_run_is_not_taken_up_and_not_thrown_away(tmp_path):
    write(tmp_path / "a.npy", (0, 2)).close()
    output = VectorFile(tmp_path / "a.npy")
    with pytest.raises(InputError, match="another model, other options or another version"):
        output.resume({**RUN, "max_length": 64}, iter(TEXTS))
    assert output.close() == 2
    output = VectorFile(tmp_path / "a.npy")
    assert output.resume(RUN, iter(TEXTS)) == 2
    output.close()


@pytest.mark.parametrize("journal", [b"", b"{}", b"[]", b"\xff", b'{"rows": "x"}', b'{"rows": [], "bytes": 1}'])
def test_a_damaged_journal_is_none(tmp_path, journal):
    write(tmp_path / "a.npy", (0, 2)).close()
    (tmp_path / ".a.npy.journal").write_bytes(journal)
    output = VectorFile(tmp_path / "a.npy")
    assert output.resume(RUN, iter(TEXTS)) == 0
    assert output.close() == 0
    output = VectorFile(tmp_path / "a.npy")
    output.append(TEXTS, VECTORS)
    output.finish(3)
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), VECTORS)


def test_what_was_not_noted_is_removed(tmp_path):
    output = VectorFile(tmp_path / "a.npy")
    output.append(TEXTS, VECTORS)
    assert not output.close()
    assert list(tmp_path.iterdir()) == []


def test_one_output_has_one_writer(tmp_path):
    output = VectorFile(tmp_path / "a.npy")
    with pytest.raises(InputError, match="another run is writing it"):
        VectorFile(tmp_path / "a.npy")
    output.close()
    VectorFile(tmp_path / "a.npy").close()


def test_an_archive_has_one_writer_until_it_is_packed(tmp_path, monkeypatch):
    output = write(tmp_path / "a.npz", (0, 5))
    pack = VectorFile._convert

    def while_another_begins(self, width):
        with pytest.raises(InputError, match="another run is writing it"):
            VectorFile(tmp_path / "a.npz")
        pack(self, width)

    monkeypatch.setattr(VectorFile, "_convert", while_another_begins)
    output.finish(width=3)
    assert (load(tmp_path / "a.npz") == VECTORS).all()


def test_an_output_is_checked_beforehand(tmp_path):
    check_output(tmp_path / "a.npy", overwrite=False)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match=r"must end with one of \.npy, \.npz, \.safetensors, \.jsonl"):
        check_output(tmp_path / "a.txt", overwrite=False)
    (tmp_path / "b.npy").touch()
    check_output(tmp_path / "b.npy", overwrite=True)
    with pytest.raises(InputError, match="exists already"):
        check_output(tmp_path / "b.npy", overwrite=False)
    (tmp_path / "c.npy").mkdir()
    with pytest.raises(InputError, match="a folder"):
        check_output(tmp_path / "c.npy", overwrite=True)
    with pytest.raises(FileNotFoundError) as error:
        check_output(tmp_path / "none" / "a.npy", overwrite=False)
    assert error.value.filename == str(tmp_path / "none" / "a.npy")
