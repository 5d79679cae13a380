"""Writes the tables that come from the code into the documents; `--check` only compares.

A table stands between `<!-- table NAME -->` and `<!-- end -->`; `make bench` writes the one named
`performance`.
"""

import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from tamiyo import _core
from tamiyo.graph import schema

ROOT = Path(__file__).parent.parent
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
PRESENCE = {"required": "required", "zero": "0", "not_measured": "NaN: not measured"}


def markdown(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def value_range(field: _core.Field) -> str:
    """Bounds in words; a bound that is the type's own is none."""
    kind = np.dtype(field.dtype)
    limits = np.finfo(kind) if kind.kind == "f" else np.iinfo(kind)
    if field.high < float(limits.max):
        return f"{field.low:.16g} … {field.high:.16g}"
    return f"≥ {field.low:g}" if field.low > float(limits.min) or kind.kind == "u" else "any"


def field_table(fields: Iterable[_core.Field]) -> str:
    """Fields with their type, unit, range and what their absence means."""
    rows = (
        (
            f"`{field.name}`",
            field.dtype,
            field.unit,
            value_range(field),
            PRESENCE[field.presence],
            field.doc,
        )
        for field in fields
    )
    return markdown(("field", "type", "unit", "range", "if absent", "meaning"), rows)


TABLES = {
    "signals": lambda: field_table(_core.signal_fields()),
    "layers": lambda: field_table(_core.layer_fields()),
    "graph": schema.render_schema,
}


def fill(text: str) -> str:
    """The document with every table made anew."""
    return re.sub(
        rf"(<!-- table ({'|'.join(TABLES)}) -->\n).*?(<!-- end -->)",
        lambda match: f"{match[1]}\n{TABLES[match[2]]()}\n\n{match[3]}",
        text,
        flags=re.DOTALL,
    )


def main() -> int:
    """Write, or compare."""
    stale = [path for path in DOCUMENTS if fill(path.read_text()) != path.read_text()]
    if "--check" in sys.argv:
        for path in stale:
            print(f"{path.name} is out of date: run `make tables`")
        return len(stale)
    for path in stale:
        path.write_text(fill(path.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
