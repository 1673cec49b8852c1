"""Draws the pictures of README.md, from the numbers that the code computes: `python -m tests.figures.draw`.

They are SVG files as plain text, in a light and a dark colour scheme. test_figures.py compares the files with what this draws.
"""

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

import torch

from minisbert.models.deberta_v2 import by_rising_distance, log_buckets, relative_shift
from minisbert.text.batching import plan_batches
from minisbert.training.optim import warmup_linear

FOLDER = Path(__file__).parent
STYLE = """
svg { --page: #ffffff; --ink: #24292f; --quiet: #6e7781; --a: #d64541; --b: #2f6f9f; --empty: #e6e8eb; --on: #fff; }
@media (prefers-color-scheme: dark) {
  svg { --page: #17181c; --ink: #e8e8ea; --quiet: #9a9aa4; --a: #f07058; --b: #6bb0e0; --empty: #34363d; --on: #111; }
}
text { fill: var(--ink); font: 13px system-ui, sans-serif; text-anchor: middle; }
.start { text-anchor: start; } .quiet { fill: var(--quiet); }
.page { fill: var(--page); } .box { fill: var(--page); stroke: var(--ink); }
.line { fill: none; stroke: var(--ink); stroke-width: 1.5; } .dash { fill: none; stroke: var(--quiet); stroke-dasharray: 4 3; }
.a { fill: var(--a); } .b { fill: var(--b); } .empty { fill: var(--empty); }
.on { fill: var(--on); }
"""


def picture(width: int, height: int, title: str, parts: Sequence[str]) -> str:
    """The whole file."""
    size = f'width="{width}" height="{height}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" {size} role="img">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n"
        f'<rect class="page" {size}/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def text(x: float, y: float, words: object, kind: str = "") -> str:
    """A line of text, centred at x."""
    return f'<text x="{x:g}" y="{y:g}" class="{kind}">{escape(str(words))}</text>'


def box(x: float, y: float, width: float, height: float, kind: str) -> str:
    """A rectangle."""
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="2" class="{kind}"/>'


def line(path: str, kind: str = "line") -> str:
    """A path in the language of SVG: "M0 0h10"."""
    return f'<path d="{path}" class="{kind}"/>'


def circle(x: float, y: float, radius: float, kind: str) -> str:
    """A circle."""
    return f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" class="{kind}"/>'


def arrow(x: float, y: float, end: float) -> str:
    """An arrow to the right."""
    return line(f"M{x:g} {y:g}H{end:g}m-6 -4l6 4l-6 4")


def layer() -> str:
    """One layer with its residuals: models/layers.py, EncoderLayer."""
    parts = [text(22, 95, "x"), arrow(34, 90, 90)]
    for x, name in ((90, "attention"), (380, "feed-forward")):
        parts += [box(x, 70, 110, 40, "box"), text(x + 55, 95, name), arrow(x + 110, 90, x + 138)]
        parts += [
            circle(x + 150, 90, 11, "box"),
            text(x + 150, 95, "+"),
            arrow(x + 161, 90, x + 185),
        ]
        parts += [box(x + 185, 70, 60, 40, "box"), text(x + 215, 95, "norm"), arrow(x + 245, 90, x + 290)]
        parts += [
            line(f"M{x - 25} 90V40H{x + 150}V79m-4 -6l4 6l4 -6"),
            text(x + 62, 32, "residual: a copy of what came in", "quiet"),
        ]
    parts += [text(145, 132, "tokens look at each other", "quiet"), text(435, 132, "each token by itself", "quiet")]
    return picture(700, 150, "One layer: attention and feed-forward, each added to its input and normalised", parts)


def buckets() -> str:
    """Distances on a number line with the borders of their buckets: models/deberta_v2.py, log_buckets."""
    count, longest, size = 8, 32, 21
    found = log_buckets(torch.arange(longest), count, longest).tolist()
    parts = [text(8, 50, "distance", "start quiet"), text(8, 85, "bucket", "start quiet")]
    for distance, bucket in enumerate(found):
        x = 80 + size * distance
        parts += [box(x, 34, size, 24, "empty" if bucket % 2 else "page"), text(x + size / 2, 51, distance)]
    for bucket in range(count):
        first, last = found.index(bucket), longest - found[::-1].index(bucket)
        parts += [box(80 + size * first + 1, 68, size * (last - first) - 2, 24, "b" if bucket <= count // 2 else "a")]
        parts += [text(80 + size * (first + last) / 2, 85, bucket, "on")]
    near, far = 80 + size * (count // 2 + 1) / 2, 80 + size * (count // 2 + 1 + longest) / 2
    parts += [text(near, 112, "a bucket each", "quiet"), text(far, 112, "buckets of growing width", "quiet")]
    parts += [
        text(400, 20, f"log_buckets(distance, buckets={count}, max_distance={longest}); negative distances mirror it", "quiet")
    ]
    return picture(80 + size * longest + 16, 124, "Logarithmic buckets of distances", parts)


def shift() -> str:
    """The relative shift, and the flip and roll before it: models/deberta_v2.py."""
    T, size = 3, 34
    numbers = torch.arange(T * 2 * T)
    answer = relative_shift(numbers.view(T, 2 * T))
    place = {number: (i, j) for i, row in enumerate(answer.tolist()) for j, number in enumerate(row)}

    def matrix(x: float, y: float, rows: list[list[int]], caption: str) -> list[str]:
        cells = [text(x + size * len(rows[0]) / 2, y - 10, caption, "quiet")]
        for i, row in enumerate(rows):
            for column, number in enumerate(row):
                kind = "empty" if number not in place else "a" if place[number][0] % 2 else "b"
                label = f"{place[number][0]},{place[number][1]}" if number in place else ""
                left, top = x + size * column, y + size * i
                cells += [box(left + 1, top + 1, size - 2, size - 2, kind), text(left + size / 2, top + 22, label, "on")]
        return cells

    flat = numbers[T:].tolist()
    shifted = [flat[i * (2 * T - 1) : (i + 1) * (2 * T - 1)] for i in range(T)]
    parts = matrix(16, 40, numbers.view(T, 2 * T).tolist(), "row = token, column = distance")
    parts += [
        arrow(232, 91, 290),
        text(261, 80, f"cut {T} off,", "quiet"),
        text(261, 112, "rows shorter", "quiet"),
        text(261, 128, "by one", "quiet"),
    ]
    parts += [*matrix(310, 40, shifted, "the same memory"), arrow(490, 91, 530)]
    parts += matrix(546, 40, answer.tolist(), f"first {T} columns")
    falling = torch.arange(T, -T, -1)[:, None]
    steps = [("as it comes", falling), (".flip(0)", falling.flip(0)), (".roll(1, 0)", by_rising_distance(falling))]
    parts += [text(16, 176, "For p2c the distances must rise:", "start quiet")]
    for number, (name, column) in enumerate(steps):
        top = 190 + 30 * number
        parts += [text(16, top + 18, name, "start")]
        for place_, distance in enumerate(column.flatten().tolist()):
            left = 110 + size * place_
            parts += [
                box(left + 1, top, size - 2, 26, "empty" if distance == T else "b"),
                text(left + size / 2, top + 18, distance, "" if distance == T else "on"),
            ]
    parts += [text(330, 250, "Place c now holds distance c - 3. No two of", "start quiet")]
    parts += [text(330, 268, "three tokens are 3 apart: place 0 does not matter.", "start quiet")]
    return picture(720, 290, "The relative shift for three tokens", parts)


def batches() -> str:
    """Rectangles of tokens and padding before and after planning: text/batching.py."""
    lengths = [6, 21, 8, 7, 12, 5, 9, 22, 7, 13, 6, 8]
    cell, row = 13, 15

    def rectangle(x: float, y: float, rows: Sequence[int]) -> list[str]:
        widest = max(lengths[index] for index in rows)
        parts = []
        for number, index in enumerate(rows):
            top = y + row * number
            parts += [box(x, top, cell * widest, row - 3, "empty"), box(x, top, cell * lengths[index], row - 3, "b")]
        return parts

    plan = plan_batches(lengths, max_tokens=10_000, batch_cost=8)[::-1]
    before = len(lengths) * max(lengths)
    after = sum(len(rows) * max(lengths[index] for index in rows) for rows in plan)
    real = sum(lengths)
    parts = [text(20, 24, f"one batch: {before} tokens, {before - real} of them padding", "start")]
    parts += rectangle(20, 36, range(len(lengths)))
    parts += [text(380, 24, f"sorted and cut: {after} tokens, {after - real} of them padding", "start")]
    top = 36.0
    for rows in plan:
        parts += rectangle(380, top, rows.tolist())
        top += row * len(rows) + 10
    return picture(720, 36 + row * len(lengths) + 10 * len(plan) + 6, "Batches before and after planning", parts)


def rate() -> str:
    """The learning rate over the steps: training/optim.py, warmup_linear."""
    warmup, total, largest = 2, 6, 2e-5
    rates = [largest * warmup_linear(step, warmup, total) for step in range(total)]

    def height(value: float) -> float:
        return 190 - 150 * value / largest

    track = " ".join(f"{90 + 90 * step} {height(value):g}" for step, value in enumerate([*rates, 0.0]))
    parts = [line("M90 30V190H660"), line(f"M{track}", "dash"), text(375, 236, "step (updates that are done)", "quiet")]
    for value in (0.0, largest / 2, largest):
        parts += [text(58, height(value) + 4, f"{value:g}")]
    for step, value in enumerate(rates):
        parts += [circle(90 + 90 * step, height(value), 5, "a"), text(90 + 90 * step, 212, step)]
    parts += [
        text(190, 26, "warm-up", "quiet"),
        text(480, 26, "down in a line", "quiet"),
        text(168, 182, "moves nothing", "quiet"),
    ]
    return picture(700, 250, f"The learning rate: {warmup} steps of warm-up in {total}", parts)


def objectives() -> str:
    """Two objectives in turn: training/loop.py."""
    steps_per_epoch, counts = 3, {"NLI, 5 batches": 5, "STS, 3 batches": 3}
    wide, parts = 96, [text(14, 172, "parameters", "start quiet"), line("M120 168H706")]
    for number, (name, count) in enumerate(counts.items()):
        top, kind = 50 + 50 * number, "ba"[number]
        parts += [text(14, top + 20, name, "start")]
        for step in range(2 * steps_per_epoch):
            x = 126 + wide * step + 46 * number
            parts += [box(x, top, 40, 28, kind), text(x + 20, top + 19, step % count + 1, "on")]
            parts += [line(f"M{x + 20} {top + 28}V162m-4 -6l4 6l4 -6", "dash")]
    for step in range(2 * steps_per_epoch):
        parts += [text(169 + wide * step, 38, f"step {step + 1}", "quiet")]
    parts += [
        line(f"M{122 + wide * steps_per_epoch} 12V180", "dash"),
        text(266, 16, "epoch 1", "quiet"),
        text(554, 16, "epoch 2", "quiet"),
    ]
    parts += [
        text(
            14,
            204,
            "Each objective has batches and an AdamW of its own; all move the same parameters, one after the other.",
            "start quiet",
        )
    ]
    return picture(720, 220, "Two objectives in turn", parts)


FIGURES: dict[str, Callable[[], str]] = {
    "layer.svg": layer,
    "buckets.svg": buckets,
    "shift.svg": shift,
    "batches.svg": batches,
    "rate.svg": rate,
    "objectives.svg": objectives,
}

if __name__ == "__main__":
    for name, draw in FIGURES.items():
        (FOLDER / name).write_text(draw(), encoding="utf-8")
