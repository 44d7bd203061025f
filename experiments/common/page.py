"""Pages of results: one HTML file each, with tables, figures, and how they were made.

A page works offline and without JavaScript, which only sorts tables. The template is
`page.html.jinja`; `experiments.report` has one that extends it.
"""

import base64
import math
import shlex
import sys
import urllib.parse
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from absl import flags

from experiments.common import folder

if TYPE_CHECKING:
    import pandas as pd

FLAGS = flags.FLAGS
FORMS = {
    "accuracy": ".4f", "signed": "+.4f", "cost": ".5f", "count": ",.0f",
    "lam": ".4g", "short": ".3g", "share": ".1e",
}  # fmt: skip
# Flags that say where a run is written. They change none of its numbers.
PLACE_FLAGS = ("output_dir", "resume", "overwrite")


class Column(NamedTuple):
    """A column of a table on a page."""

    head: str
    field: str | tuple[str, str]  # of a row; or the ends of an interval; or a text and its link
    form: str = "text"  # or "code", "link", "spread", or one of `FORMS`


class Figure(NamedTuple):
    """A figure of the run's folder."""

    name: str  # the file is figures/NAME.png
    alt: str  # for readers who don't see it
    caption: str


class Section(NamedTuple):
    """A heading, and the parts below it in this order."""

    heading: str
    text: Sequence[str] = ()  # paragraphs
    code: str = ""  # a command
    facts: Sequence[tuple[str, Any]] = ()  # names and values
    table: "pd.DataFrame | None" = None
    columns: Sequence[Column] = ()  # of the table
    figures: Sequence[Figure] = ()


def write_page(
    path: Path,
    title: str,
    answer: str,
    sections: Sequence[Section],
    experiment: str,
    data: Sequence[Mapping[str, Any]],
) -> None:
    """Writes `index.html` into a run's folder, with the figures of the folder inside.

    `answer` is a sentence. `data` are data sets as `folder.describe_dataset` describes them; they
    follow the sections, with the command and the machine. All text is escaped.
    """
    values = {"title": title, "answer": answer, "sections": [*sections, _record(experiment, data)]}
    folder.write_text(path / "index.html", render("common/page.html.jinja", path, values))


def render(template: str, path: Path, values: Mapping[str, Any]) -> str:
    """A page as text, from a template in `experiments` and the figures in the folder `path`."""
    import jinja2

    def image(name: str) -> str:
        content = (path / folder.FIGURES / f"{name}.png").read_bytes()
        return "data:image/png;base64," + base64.b64encode(content).decode()

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parents[1]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {name: partial(number, form=name) for name in FORMS}
    environment.filters["address"] = partial(urllib.parse.quote, safe="/#")
    functions = {"image": image, "number": number, "interval": interval, "spread": spread}
    environment.globals |= functions
    return environment.get_template(template).render(values)


def number(value: float | None, form: str) -> str:
    """A number as text, in one of the `FORMS`; "–" for none."""
    if value is None or not math.isfinite(value):
        return "–"
    text = format(value, FORMS[form])
    return text.replace("-", "−") if form == "signed" else text


def interval(low: float | None, high: float | None, form: str) -> str:
    """An interval as text; "–" for none."""
    ends = [number(end, form) for end in (low, high)]
    return "–" if "–" in ends else " to ".join(ends)


def spread(mean: float | None, sd: float | None) -> str:
    """A mean as text, with the standard deviation if there is one."""
    texts = [number(value, "accuracy") for value in (mean, sd)]
    return texts[0] if texts[1] == "–" else " ± ".join(texts)


def _record(experiment: str, data: Sequence[Mapping[str, Any]]) -> Section:
    """The command, the data and the machine.

    It leaves out the seconds and the folder, so a resumed run has the same page.
    """
    machine = folder.describe_machine()
    key_flags = FLAGS.get_key_flags_for_module(sys.argv[0])
    words = [f.serialize() for f in key_flags if f.present and f.name not in PLACE_FLAGS]
    command = shlex.join(["python", "-m", f"experiments.{experiment}", *words])
    facts = []
    for dataset in data:
        sizes = ", ".join(f"{n:,} {split}" for split, n in dataset["sizes"].items())
        facts += [("data", dataset["name"]), ("examples", sizes), ("sha256", dataset["sha256"])]
        facts += [("note", dataset["notice"])] if dataset["notice"] else []
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    facts += [("versions", versions)]
    facts += [("device", f"{machine['device']}, {machine['n_devices']} in all")]
    text = "All numbers of this page, unrounded, are in result.json and the tables beside it."
    return Section("Command, data and versions", [text], command, facts)
