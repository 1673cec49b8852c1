"""Proves that every form of input gives its texts as they are, and that what is wrong is named with file and line."""

import gzip
import io
import json

import pytest

from minisbert.errors import InputError, check_unicode
from minisbert.text import rows
from minisbert.text.rows import read_texts


def read(data, name="a.txt", field=None):
    return list(read_texts(io.BytesIO(data if isinstance(data, bytes) else data.encode()), name, field))


def refusal(data, name="a.txt", field=None):
    with pytest.raises(InputError) as error:
        read(data, name, field)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_an_empty_file_has_no_texts():
    assert read("") == []


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", ["", "\n"])
def test_a_line_is_a_text(end, last):
    assert read(end.join(["밥", "", "  빵 ", "물"]) + last.replace("\n", end)) == ["밥", "", "  빵 ", "물"]


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\u0085", "\x0b", "\x0c", "\x1c", "\r"])
def test_other_separators_are_characters_of_the_text(separator):
    text = f"밥{separator}빵"
    assert read(f"{text}\n물") == [text, "물"]
    line = json.dumps({"text": text}, ensure_ascii=False)
    assert read(f"{line}\n", "a.jsonl") == [text]
    assert read(f"text\n{text}\n", "a.tsv") == [text]
    assert read(f'text\n"{text}"\n', "a.csv") == [text]


@pytest.mark.parametrize(("name", "data"), [("a.txt", "밥"), ("a.tsv", "text\n밥"), ("a.csv", "text\n밥")])
def test_a_byte_order_mark_is_no_character(name, data):
    assert read(b"\xef\xbb\xbf" + data.encode(), name) == ["밥"]
    assert read(data + "\n\ufeff빵", name) == ["밥", "\ufeff빵"]  # but it is one elsewhere


def test_json_lines():
    assert read('{"id": 1, "text": "밥"}\n{"text": "\\ubc25 \\"\\n\\u2028"}\n', "a.JSONL") == ["밥", '밥 "\n\u2028']
    assert read('{"문장": "밥"}', "a.jsonl", "문장") == ["밥"]


def test_tsv_knows_no_quoting():
    data = 'id\tsentence1\tscore\n1\t"밥\t5\n2\t빵" 하나\t3\n'
    assert read(data, "sts.tsv", "sentence1") == ['"밥', '빵" 하나']


def test_csv_knows_quoting():
    data = 'id,text\n1,"밥, 빵"\n2,"그는 ""네""라고\n말했다."\n3,물\n'
    assert read(data, "a.csv") == ["밥, 빵", '그는 "네"라고\n말했다.', "물"]
    long = "가" * 200_000  # the csv module alone refuses 131,073 characters
    assert read(f'text\n"{long}"\n', "a.csv") == [long]
    assert read("text\n\n밥\n\n\n", "a.csv") == ["", "밥"]
    assert read("text,n,,\n밥,1,,\n", "a.csv") == ["밥"]  # Excel writes the empty columns too
    assert read('"한, 두",\n밥,\n', "a.csv", "한, 두") == ["밥"]
    assert read(",text\n0,밥\n", "a.csv") == ["밥"]  # and pandas an index without a name


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.jsonl", '{"text": "밥"}\n\n{"text": "빵"}', "a.jsonl:2: not JSON; expected an object a line, or an array"),
        ("a.jsonl", '{"text": "밥"', "a.jsonl:1: not JSON"),
        ("a.jsonl", "[" * 100_000, "a.jsonl: not JSON"),
        ("a.jsonl", '{"text": ' + "9" * 5000 + "}", "a.jsonl:1: not JSON"),
        ("a.jsonl", '"밥"', "a.jsonl:1: expected a JSON object, found str"),
        ("a.json", '[{"text": "밥"}, 7]', "a.json: record 2: expected a JSON object, found int"),
        ("a.json", '[{"text": "밥"},\n{"text": null}]', "a.json: record 2: the field 'text' is not a text but null"),
        ("a.json", '["밥"]', "a.json: record 1: expected a JSON object, found str"),
        ("a.json", '{\n  "text": "밥"\n}', "a.json:1: not JSON; expected an object a line, or an array of objects"),
        ("a.jsonl", '{"Text": "밥"}', "a.jsonl:1: no field 'text'; choose with --text-field one of: Text"),
        ("a.json", '{"text": {"0": "밥"}}', "a.json:1: no field 'text'; choose with --text-field one of: text.0"),
        ("a.jsonl", '{"text": 7}', "a.jsonl:1: the field 'text' is not a text but int"),
        ("a.jsonl", '\n{"text": 7}', "a.jsonl:2: the field 'text' is not a text but int"),
        ("a.jsonl", '{"text": "\\udc00"}', "a.jsonl:1: the field 'text': character 1 is no Unicode character"),
        ("a.tsv", "id\tsentence\n1\t밥", "a.tsv:2: no field 'text'; choose with --text-field one of: id, sentence"),
        ("a.tsv", "id\ttext\n1\t밥\n2\n", "a.tsv:3: 1 columns, expected 2"),
        ("a.tsv", "text\ttext\n1\t밥\n", "a.tsv:1: two columns have the same name; the columns are: text, text"),
        ("a.csv", "text,,\n밥,,\n빵,1,2\n", "a.csv:3: a value in one of several columns without a name"),
        ("a.csv", "text;score\n밥;1\n", "a.csv:1: ';' seems to stand between the values; a .csv has commas there"),
        ("a.tsv", "id,text\n1,밥\n", "a.tsv:1: ',' seems to stand between the values; a .tsv has tabs there"),
        ("a.csv", 'id,text\n1,"밥\n빵"\n2\n', "a.csv:4: 1 columns, expected 2"),
        ("a.csv", 'id,text\n1,밥\n2,"빵\n3,물\n', "a.csv:3: not CSV: unexpected end of data"),
        ("a.csv", 'text\n"밥" 빵\n', "a.csv:2: not CSV: "),
    ],
)
def test_what_is_wrong_is_named_with_its_line(name, data, message):
    assert refusal(data, name).startswith(message)


CP949 = "it looks like CP949, convert it: iconv -f cp949 -t utf-8 a.txt > NEW (in Excel: save as CSV UTF-8)"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            "밥\n".encode() + "고양이는 물을 마신다.\n".encode("cp949"),
            f"a.txt:2: not UTF-8 (byte 1 of the line); {CP949}",
        ),
        ("고양이".encode("utf-16"), "a.txt:1: UTF-16, not UTF-8; convert it: iconv -f utf-16 -t utf-8 a.txt > NEW"),
        (
            "고양이\n".encode("utf-16-be"),
            "a.txt:1: holds a NUL byte: a binary file, or UTF-16; if it is text, convert it: iconv -f utf-16be",
        ),
        (
            "고양이 cat\n".encode("utf-16-le"),
            "a.txt:1: holds a NUL byte: a binary file, or UTF-16; if it is text, convert it: iconv -f utf-16le",
        ),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "a.txt:1: not UTF-8 (byte 1 of the line); expected UTF-8 text"),
        (b"PK\x03\x04\x14\0\0\0\x08\0", "a.txt:1: holds a NUL byte"),
        (b"\x1f\x8b\x08\x08\xff", "a.txt: damaged gzip data; make or fetch the file again"),
        (gzip.compress("밥".encode())[:-9], "a.txt: damaged gzip data"),
        (b"\x1f\x8b", "a.txt: damaged gzip data"),
        ("똠방각하".encode("cp949"), "a.txt:1: not UTF-8 (byte 1 of the line); expected UTF-8 text; if it is in CP949"),
        (b"a\xed\xa0\x80", "a.txt:1: not UTF-8 (byte 2 of the line)"),  # a surrogate in UTF-8
    ],
)
def test_E18_other_encodings_and_binary_files_are_named_with_a_hint(data, message):
    assert refusal(data).startswith(message)


def test_a_line_without_end_does_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr(rows, "LONGEST_LINE", 1 << 20)
    assert refusal("밥\n" + "a" * (1 << 20)) == "a.txt:2: longer than 1 MiB; expected lines of text"
    assert len(read("밥\n" + "a" * ((1 << 20) - 2) + "\n빵")) == 3


def test_texts_come_as_they_are_read():
    texts = read_texts(io.BytesIO("밥\n".encode() + b"\xff\n"), "a.txt")
    assert next(texts) == "밥"


def test_half_of_a_surrogate_pair_is_refused():
    check_unicode("밥 \U0001f35a", "TEXT")
    with pytest.raises(InputError, match="TEXT: character 2 is no Unicode character"):
        check_unicode("밥\ud83c", "TEXT")


TEXTS = ["밥을 먹는다.", '그는 "네"라고 했다', "a,b", "끝"]
FORMS = {
    "txt": "\n".join(TEXTS),
    "tsv": "번호\ttext\n" + "\n".join(f"{n}\t{text}" for n, text in enumerate(TEXTS)),
    "csv": "text,번호\n" + "\n".join('"' + text.replace('"', '""') + f'",{n}' for n, text in enumerate(TEXTS)),
    "jsonl": "\n".join(json.dumps({"text": text, "n": None}) for text in TEXTS),
    "ndjson": "\n".join(json.dumps({"text": text, "다른": [1]}, ensure_ascii=False) for text in TEXTS),
    "json": json.dumps([{"n": 1, "text": text} for text in TEXTS], ensure_ascii=False, indent=2),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("end", ["", "\n", "\n\n\n", "\r\n\r\n"], ids=repr)
def test_the_same_texts_in_every_form(form, packed, end, tmp_path):
    """Empty lines at the end are no rows. By the ending of the name, or as standard input with the form said."""
    data = (FORMS[form] + end).encode()
    data = gzip.compress(data) if packed else data
    said = {"ndjson": "jsonl", "json": "jsonl"}.get(form, form)
    assert read(data, f"a.{form}") == read(data, f"A.{form.upper()}.gz") == TEXTS
    assert list(read_texts(io.BytesIO(data), "standard input", form=said)) == TEXTS
    (tmp_path / f"a.{form}").write_bytes(data)
    with open(tmp_path / f"a.{form}", "rb") as file:
        assert list(read_texts(file, file.name)) == TEXTS
    if form != "txt":
        (tmp_path / f"a.{form}.gz").write_bytes(data)
        assert [row["text"] for _, row in rows.read_table(tmp_path / f"a.{form}.gz")] == TEXTS


def test_an_empty_line_inside_is_a_row_of_txt_and_no_row_at_the_end():
    assert read("밥\n\n\n빵\n\n") == ["밥", "", "", "빵"]
    assert read("\n밥\n \n") == ["", "밥", " "]
    assert read("\n\n") == []


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("표.xlsx", "save it as CSV UTF-8"),
        ("a.parquet", "to_json("),
        ("a.PDF", "save its text as .txt"),
        ("a.docx", "save its text as .txt"),
        ("a.hwp", "save its text as .txt"),
        ("a.csv.zip", "unpack it first"),
        ("a.pdf.gz", "save its text as .txt"),
        ("a.dat", "rename it to .txt, .jsonl, .csv or .tsv, or say --input-format to encode.py"),
    ],
)
def test_a_form_that_is_not_known_is_no_lines_of_text(name, step, tmp_path):
    assert refusal("밥", name).startswith(f"{name}: what is in a .")
    assert step in refusal("밥", name)
    with pytest.raises(InputError, match="is not known"):
        list(rows.read_table(tmp_path / name))
    assert list(read_texts(io.BytesIO("밥".encode()), name, form="txt")) == ["밥"]


@pytest.mark.parametrize("first", ['{"text": "밥"}', "[", "{", '[{"text": "밥"}]', ' [ {"', '["밥"'])
def test_json_without_its_name_is_no_text(first):
    assert refusal(f"{first}\n밥", "standard input").startswith(
        "standard input:1: looks like JSON, not a text; pass --input-format"
    )
    assert list(read_texts(io.BytesIO(first.encode()), "standard input", form="txt")) == [first]


@pytest.mark.parametrize("text", ["[공지] 오늘은 쉽니다", "{이름}님 안녕하세요", "[1] 밥", "(밥)", ""])
def test_a_bracket_does_not_make_json(text):
    assert read(f"{text}\n밥") == [text, "밥"]


def test_lines_of_text_have_no_fields():
    with pytest.raises(InputError, match="standard input: lines of text have no field '문장'; say what it is: --input-format"):
        list(read_texts(io.BytesIO(b""), "standard input", "문장"))


def test_fields_inside_fields():
    line = '{"labels": {"label": "밥", "deep": {"er": 1}}, "text": "빵"}'
    assert read(line, "a.jsonl", "labels.label") == ["밥"]
    assert read(line, "a.jsonl") == ["빵"]


def test_a_table_that_pandas_has_quoted_is_explained(tmp_path):
    advice = "a .tsv knows no quotes: write values with quotation marks or line breaks as .csv"
    assert refusal('text\tn\n"그는 ""네""라고"\t1\n', "a.tsv") == f'a.tsv:2: a value is quoted, with "" for "; {advice}'
    assert refusal('n\ttext\n1\t"한 줄\n두 줄"\n', "a.tsv") == f"a.tsv:3: 1 columns, expected 2; {advice}"
    assert refusal('text\tn\n"한 줄\n두 줄"\t1\n', "a.tsv") == f"a.tsv:2: 1 columns, expected 2; {advice}"
    assert refusal('text\tn\n"한\t칸"\t1\n', "a.tsv") == f"a.tsv:2: 3 columns, expected 2; {advice}"
    (tmp_path / "a.txt").write_text('text\tn\n"그는 ""네""라고"\t1\n', encoding="utf-8")
    with pytest.raises(InputError, match="a value is quoted"):  # a table in .txt is one of .tsv
        list(rows.read_table(tmp_path / "a.txt"))
    for as_it_is in ('"밥"', '"밥" "빵"', '""', '"', 'ㄱ""ㄴ', '"밥'):  # values that KorSTS could have
        assert read(f"text\tn\n{as_it_is}\t1\n", "a.tsv") == [as_it_is]
