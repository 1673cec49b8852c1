"""Proves what a tour looks like: aligned on a terminal whatever the texts hold, and a page that a real browser draws."""

import html.parser
import io
import re
import shutil
import signal
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from minisbert.cli import grids, tour
from minisbert.cli.grids import columns, grid, table_lines, visible
from minisbert.cli.tour import LEAST_WIDTH
from minisbert.tour import Table
from tests.tiny import tiny_folder

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
README = Path(__file__).resolve().parents[2] / "README.md"
COLOUR = re.compile(r"\x1b\[[\d;]*m")
PAIR = ("한 남자가 밥을 먹는다.", "두 아이가 길을 달린다.")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny_folder(tmp_path_factory.mktemp("model") / "deberta", "deberta-v2"))


@pytest.fixture
def run(model, capsys, monkeypatch, tmp_path):
    """Runs the tour of the tiny model in an empty folder; returns exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    handler = signal.getsignal(signal.SIGTERM)

    def run(*arguments):
        try:
            code = tour.main(["-m", model, *map(str, arguments)])
        except SystemExit as stop:
            code = stop.code
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    yield run
    signal.signal(signal.SIGTERM, handler)


def shown_table(rows, **options):
    numbers = np.arange(len(rows) ** 2, dtype=float).reshape(len(rows), -1) - 3
    return Table("weights", tuple(rows), tuple(rows), numbers, shaded=True, **options)


def test_steps_come_in_the_order_of_the_book(run):
    code, out, err = run(*PAIR, "--layer", 2, "--head", 2)
    assert (code, err) == (0, "")
    titles = re.findall(r"^\d+\. (.*?)(?::.*)?   \[", out, re.MULTILINE)
    assert titles == [
        *("The text", "Word pieces", "Embeddings", "Queries and keys", "Softmax", "Mixture", "Residual and norm"),
        *("Feed-forward", "All 2 layers", "Pooling", "The vector", "Why are they alike?", "One training step"),
    ]
    assert "layer 2, head 2   [models/deberta_v2.py DisentangledAttention.position_scores()]" in out
    assert "\x1b" not in out
    code, out, _ = run(PAIR[0])
    assert code == 0 and "11. The vector" in out and "\n12." not in out


@pytest.mark.parametrize("width", [LEAST_WIDTH, 77, 200])
@pytest.mark.parametrize(
    "texts",
    [("",), ("가나다 " * 3000, "밥"), ("😀 👩‍👩‍👧 밥", "שלום العربية 밥\u200f"), ("e\u0301 \x1b[31m", "　전각\n"), PAIR],
)
def test_what_is_printed_fits_and_is_aligned(run, texts, width):
    code, out, err = run(*texts, "--width", width)
    assert (code, err) == (0, "")
    lines = out.split("\n")
    assert all(line.isprintable() for line in lines if "\u200e" not in line)
    body = [line for line in lines if not re.match(r"\d+\. ", line)]  # a heading names a function, however long
    assert max(columns(line.replace("\u200e", "")) for line in body) <= width
    for number, line in enumerate(lines):
        if line == "weights":
            table = [line.replace("\u200e", "") for line in lines[number + 1 : lines.index("", number)]]
            assert len({columns(line) for line in table}) == 1


def test_hebrew_and_arabic_names_do_not_turn_the_numbers_behind_them():
    lines = grid(["שלום", "밥"], 10, ["عربي", "빵"], [[("1.00", None)] * 2] * 2, 7)
    assert lines == ["             عربي\u200e     빵", "שלום      \u200e   1.00   1.00", "밥           1.00   1.00"]


def test_a_grid_is_shortened_in_the_middle_and_its_sums_are_of_everything():
    table = shown_table("ABCDEF", sums=True)
    names, headings, cells = visible(table, most_rows=4, most_columns=3)
    assert (names, headings) == (["A", "B", "…", "F", "sum"], ["A", "…", "F", "sum"])
    assert cells[0] == [("-3.00", 0), ("…", None), ("2.00", 1), ("-3.00", None)]
    assert cells[3] == [("27.00", 9), ("…", None), ("32.00", 10), ("177.00", None)]
    assert cells[4][-1] == (f"{table.numbers.sum():.2f}", None)
    assert [len(row) for row in cells] == [4] * 5


def test_a_grid_of_equal_or_broken_numbers_has_no_shades():
    for number in (0.0, float("nan"), float("inf")):
        table = Table("", ("a",), ("b",), np.array([[number]]), shaded=True, sums=True)
        assert visible(table, 3, 3)[2] == [[(f"{number:.2f}", None)] * 2] * 2


def test_no_zero_has_a_sign():
    assert visible(Table("", ("a",), ("b",), np.array([[-0.001]])), 3, 3)[2] == [[("0.00", None)]]


def test_colour_is_for_terminals_that_want_it(run, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    def printed(*arguments):
        terminal = Terminal()
        monkeypatch.setattr(sys, "stdout", terminal)
        assert run(*PAIR, *arguments, "--width", 80)[0] == 0
        return terminal.getvalue()

    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured, plain = printed(), printed("--no-colour")
    assert COLOUR.sub("", coloured) == plain != coloured
    monkeypatch.setenv("NO_COLOR", "1")
    assert printed() == plain


def test_a_narrow_grid_still_has_a_name_and_four_columns():
    lines = table_lines(shown_table([f"토큰{number}" for number in range(30)], sums=True), LEAST_WIDTH, colour=False)
    assert len(lines) == 1 + 1 + grids.MOST_ROWS + 1
    assert len(lines[1].split()) >= 4 and max(map(columns, lines)) <= LEAST_WIDTH


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["밥", "빵", "물"], "a tour takes one text or two, found 3"),
        (["밥", "--layer", "3"], "layer must be from 1 to 2 in this model, found 3"),
        (["밥", "--head", "0"], "head must be from 1 to 2 in this model, found 0"),
        (["밥", "--width", "39"], "--width must be at least 40, found 39"),
        (["--html", "두번째 문장"], "--html 두번째 문장: the name must end with .html"),
    ],
)
def test_bad_usage_is_one_line(run, arguments, message):
    assert run(*arguments) == (2, "", f"tour: {message}\n")


def test_a_page_that_cannot_be_written_leaves_nothing(run, tmp_path):
    (tmp_path / "tour.html").mkdir()
    code, out, err = run("밥", "--html", "tour.html")
    assert (code, out) == (5, "") and err.startswith("tour: tour.html: ")
    code, out, err = run("밥", "--html", "nowhere/tour.html")
    assert (code, out) == (5, "") and err.startswith("tour: nowhere/tour.html: ")
    assert [path.name for path in tmp_path.iterdir()] == ["tour.html"]


class Tags(html.parser.HTMLParser):
    """Counts tags and collects the text of cells."""

    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.words = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_data(self, data):
        self.words.append(data.strip())


@pytest.fixture
def page(run, tmp_path):
    def page(*texts):
        code, out, err = run(*texts, "--html", "tour.html")
        assert (code, out) == (0, "") and err == f"tour: tour.html: {13 if len(texts) == 2 else 11} steps\n"
        return (tmp_path / "tour.html").read_text(encoding="utf-8")

    return page


def test_a_page_needs_nothing_from_elsewhere_and_shows_texts_as_texts(page):
    text = page("<script>alert('밥')</script> & \"밥\"", "שלום" + "가나다 " * 3000)
    assert len(text.encode()) < 300_000
    parsed = Tags()
    parsed.feed(text)
    assert not {"script", "link", "img", "iframe"} & set(parsed.tags)
    assert not {"src", "href", "onclick", "onload"} & {name for name, _ in parsed.attributes}
    assert "url(" not in text and "http" not in text and "@import" not in text
    assert "<script>alert('밥')</script> & \"밥\"" in parsed.words
    assert parsed.tags.count("section") == 13 and parsed.tags.count("svg") == 2


def test_the_page_says_what_the_terminal_says(run, page):
    parsed = Tags()
    parsed.feed(page(*PAIR))
    words = " ".join(filter(None, parsed.words))
    lines = run(*PAIR, "--width", 200)[1].split("\n")
    for title in ("weights", "p2c", "cosine"):
        start = next(number for number, line in enumerate(lines) if line.startswith(title))
        for line in lines[start : lines.index("", start)]:
            assert " ".join(line.split()) in words


@pytest.mark.skipif(BROWSER is None, reason="no Chromium")
@pytest.mark.parametrize("dark", [False, True])
def test_a_browser_draws_the_grids(page, tmp_path, dark):
    page(*PAIR)
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'browser'}"]
    command += [f"--blink-settings=preferredColorScheme={0 if dark else 1}", "--window-size=400,800"]
    url = (tmp_path / "tour.html").as_uri()
    dom = subprocess.run([*command, "--dump-dom", url], capture_output=True, text=True, timeout=120, check=True).stdout
    drawn = Tags()
    drawn.feed(dom)  # what the browser has made of it: with every tag closed and every table complete
    assert dom.count("<table>") == dom.count("</table>") == dom.count("<tbody>") == drawn.tags.count("caption")
    T = 10
    weights = re.search(r"<table>\s*<caption>weights</caption>.*?</table>", dom, re.DOTALL).group()
    assert weights.count("</tr>") == T + 2 and weights.count("</td>") == (T + 1) ** 2
    picture = tmp_path / "page.png"
    subprocess.run([*command, f"--screenshot={picture}", url], capture_output=True, timeout=120, check=True)
    assert picture.stat().st_size > 10_000


def test_the_sample_in_readme_is_of_the_default_model(capsys):
    readme = README.read_text(encoding="utf-8")
    command = re.search(r'^\$ python -m minisbert.tour "(.*)" "(.*)"$', readme, re.MULTILINE)
    sample = readme[command.end() : readme.index("```", command.end())]
    assert tour.main([*command.groups(), "--width", "90"]) == 0
    printed = capsys.readouterr().out
    assert sample.split("\n")[2] in printed
    for name in ("[CLS]", "한"):
        row = re.compile(rf"^weights\n.*\n(?:.*\n)*?{re.escape(name)} +(\d.*)$", re.MULTILINE)
        shown, real = (np.array(row.search(text)[1].split(), float) for text in (sample, printed))
        np.testing.assert_allclose(shown, real, atol=0.011)


def test_default_texts_are_in_normal_form():
    assert all(unicodedata.is_normalized("NFC", text) for text in tour.TEXTS)
