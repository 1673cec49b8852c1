"""The tour as a page: one file of HTML with no script and nothing from elsewhere, for a screen, a phone or a letter."""

from collections.abc import Sequence
from html import escape

import numpy as np

from minisbert.cli.grids import COLOURS, printable, visible
from minisbert.tour import Bars, Step, Table

MOST_TOKENS = 20  # rows and columns of a grid: more could not be read
LONGEST_TEXT = 300  # characters

STYLE = """
:root { color-scheme: light dark; --page: #fff; --ink: #222; --quiet: #666; --line: #ddd; --heat: 214, 69, 65; }
@media (prefers-color-scheme: dark) {
  :root { --page: #17181c; --ink: #e8e8ea; --quiet: #a0a0a8; --line: #3a3b42; --heat: 240, 96, 80; }
}
body { background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 60rem;
  padding: 1rem; }
h1 { font-size: 1.5rem; }
h2 { border-top: 1px solid var(--line); font-size: 1.15rem; margin: 2rem 0 0; padding-top: 1rem; }
code, caption { color: var(--quiet); font-size: .85rem; }
caption { caption-side: top; text-align: left; white-space: nowrap; }
blockquote { border-left: 3px solid rgb(var(--heat)); margin: .5rem 0; overflow-wrap: anywhere; padding-left: .75rem; }
div { margin: 1rem 0; overflow-x: auto; }
table { border-collapse: collapse; font-size: .8rem; font-variant-numeric: tabular-nums; }
th { font-weight: normal; padding: .15rem .4rem; text-align: right; white-space: nowrap; }
tbody th { background: var(--page); left: 0; position: sticky; text-align: left; }
td { padding: .15rem .4rem; text-align: right; }
svg { display: block; height: 5rem; width: 100%; }
path { stroke: rgb(var(--heat)); }
"""


def page(steps: Sequence[Step], texts: Sequence[str]) -> str:
    """The whole page."""
    shades = "".join(
        f".s{n} {{ background: rgba(var(--heat), {0.7 * n / (len(COLOURS) - 1):.2f}); }}\n" for n in range(len(COLOURS))
    )
    quotes = "".join(f"<blockquote dir=auto>{_text(text)}</blockquote>\n" for text in texts)
    return (
        "<!DOCTYPE html>\n<html lang=en>\n<head>\n<meta charset=utf-8>\n"
        '<meta name=viewport content="width=device-width, initial-scale=1">\n'
        f"<title>From a sentence to its vector</title>\n<style>{STYLE}{shades}</style>\n</head>\n<body>\n"
        f"<h1>From a sentence to its vector</h1>\n{quotes}"
        + "".join(_section(number, step) for number, step in enumerate(steps, start=1))
        + "</body>\n</html>\n"
    )


def _section(number: int, step: Step) -> str:
    parts = "".join(f"<div>{_table(part) if isinstance(part, Table) else _bars(part)}</div>\n" for part in step.parts)
    title = f"<h2>{number}. {escape(step.title)}</h2>\n<code>{escape(step.where)}</code>\n"
    return f"<section>\n{title}<p>{escape(step.text)}</p>\n{parts}</section>\n"


def _table(table: Table) -> str:
    names, headings, cells = visible(table, MOST_TOKENS, MOST_TOKENS)
    lines = [
        f"<tr><th>{_text(name)}"
        + "".join(f"<td>{text}" if shade is None else f"<td class=s{shade}>{text}" for text, shade in row)
        for name, row in zip(names, cells, strict=True)
    ]
    head = "<tr><th>" + "".join(f"<th>{_text(heading)}" for heading in headings)
    return (
        f"<table>\n<caption>{escape(table.title)}</caption>\n<thead>{head}</thead>\n<tbody>\n"
        + "\n".join(lines)
        + "\n</tbody></table>"
    )


def _bars(bars: Bars) -> str:
    """A line up or down for each number."""
    size = float(np.abs(bars.numbers).max()) or 1.0
    lines = "".join(f"M{column} 50v{-50 * number / size:.0f}" for column, number in enumerate(bars.numbers))
    box = f'viewBox="-1 -1 {len(bars.numbers) + 1} 102" preserveAspectRatio=none'
    return f"<code>{escape(bars.title)}</code>\n<svg {box} role=img aria-label='the vector'><path d='{lines}'/></svg>"


def _text(text: str) -> str:
    """What the user wrote, cut, and apart from the direction of the rest."""
    return f"<bdi>{escape(printable(text[:LONGEST_TEXT]))}{'…' * (len(text) > LONGEST_TEXT)}</bdi>"
