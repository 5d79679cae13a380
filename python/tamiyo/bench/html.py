"""Reports as one HTML file that needs nothing else: no scripts, no fonts, nothing to be fetched."""

from collections.abc import Iterable, Sequence
from html import escape

__all__ = ["html_page", "html_table"]

STYLE = """
:root { color-scheme: light dark; --own: var(--ink); --ink: light-dark(#1c1e21, #e6e6e6);
  --paper: light-dark(#fff, #17191c); --line: light-dark(#ddd, #3a3d42);
  --a: light-dark(#2a7d4f, #5cc48a); --b: light-dark(#b3402e, #ef8168);
  --c: light-dark(#2b5fb0, #7fb0ff); --d: light-dark(#8a5a00, #e0b050);
  --e: light-dark(#7a3fa0, #c79aec); --f: light-dark(#4d5560, #aab3bf); }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
figure { margin: 1.5rem 0 } svg { width: 100%; height: auto }
svg text { font-size: 11px; fill: var(--ink) }
polyline { fill: none } .grid { stroke: var(--line) }
.fault { stroke: var(--b); stroke-dasharray: 4 3 } .decision { stroke: var(--c); stroke-width: 1.5 }
.series-0 { --own: var(--a) } .series-1 { --own: var(--b) } .series-2 { --own: var(--c) }
.series-3 { --own: var(--d) } .series-4 { --own: var(--e) } .series-5 { --own: var(--f) }
polyline, line[class^=series] { stroke: var(--own); stroke-width: 1.6 }
circle { fill: var(--own) } span[class^=series] { color: var(--own) }
.scroll { overflow-x: auto } table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--line);
  vertical-align: top } td.number { text-align: right; font-variant-numeric: tabular-nums }
pre { overflow-x: auto; font-size: .85rem }
"""


def html_page(title: str, parts: Iterable[str]) -> str:
    """A whole document.

    Args:
        title: As text.
        parts: As HTML, from top to bottom.
    """
    head = (
        "<!doctype html><html lang=en><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width, initial-scale=1'>",
        f"<title>{escape(title)}</title><style>{STYLE}</style>",
        f"<h1>{escape(title)}</h1>",
    )
    return "\n".join((*head, *parts, "</html>\n"))


def html_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of texts, which scrolls by itself where it is wider than the page."""
    headings = "".join(f"<th>{escape(heading)}" for heading in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}" for cell in row) for row in rows)
    return f"<div class=scroll><table><tr>{headings}{body}</table></div>"
