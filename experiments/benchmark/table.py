"""The benchmark's table, as text."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

CELLS = {
    "contender": ("", ""),
    "configurations": ("runs", "d"),
    "batch_size": ("batch", "d"),
    "n": ("n", "d"),
    "d": ("d", "d"),
    "timed": ("timed", "d"),
    "milliseconds": ("ms", ".1f"),
    "fraction_of_peak": ("of peak", ".0%"),
    "times_numpy": ("× NumPy", ".1f"),
    "seconds": ("s", ".2f"),
    "times_ours": ("× ours", ".1f"),
    "relative_gap": ("gap", ".1e"),
    "passes": ("passes", ".1f"),
    "most_passes": ("most", "d"),
    "peak_mb": ("MB", ".0f"),
}  # by column: heading, the section's name for "", and format
SIZES = ("n", "d")


def lines(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The table's lines, section by section, without the columns that say nothing in one."""
    sections: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        sections.setdefault(row["section"], []).append(row)
    return [line for name, members in sections.items() for line in (*_lines(name, members), "")]


def _lines(section: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    padded = []
    for name, (heading, form) in CELLS.items():
        values = {row[name] for row in rows}
        if values == {None} or (name in SIZES and len(values) == 1):
            continue
        cells = [heading or section, *(with_quartiles(row, name, form) for row in rows)]
        width = max(map(len, cells))
        padded.append([f"{cell:{'>' if form else '<'}{width}}" for cell in cells])
    return ["  ".join(line).rstrip() for line in zip(*padded, strict=True)]


def with_quartiles(row: Mapping[str, Any], name: str, form: str) -> str:
    """A figure of a row, with its quartiles if they differ: "6.5 (6.3–6.9)", "94 % (92–96)"."""
    if row[name] is None:
        return ""
    text = format(row[name], form).replace("%", " %")
    q1, q3 = (row.get(f"{name}_{end}") for end in ("q1", "q3"))
    if q1 == q3:  # of a single round, or none
        return text
    ends = (format(end, form).replace("%", "") for end in (q1, q3))
    return f"{text} ({'–'.join(ends)})"
