"""Pages: the one that a probe writes, and tables that a click sorts."""

import base64
import json
import re
import shutil
import subprocess

import html5lib
import numpy as np
import pandas as pd
import pytest

from experiments.common.page import Column, Section, write_page
from tests.commands import files, finish, result

NAMES = ["<script>alert(1)</script>", "λ & μ", "\"b\" 'c'"]
WORDS = ("--lam=0.01,1", "--n_train=20", "--n_draws=1", "--figure_format=svg")


def parse(path):
    """The page as a tree, if it is valid HTML."""
    parser = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False)
    return parser.parse(path.read_text())


def text(element):
    return " ".join("".join(element.itertext()).split())


def cells(table):
    """The texts of a table's body by row."""
    return [[text(cell) for cell in row.findall("td")] for row in table.findall("tbody/tr")]


@pytest.fixture(scope="module")
def probed(tmp_path_factory):
    """The folder of a probe. HTML has to escape the names of its data and classes."""
    place, rng = tmp_path_factory.mktemp("page"), np.random.default_rng(0)
    labels = np.arange(150) % 3
    inputs = rng.normal(size=(150, 5)) + np.eye(5)[labels]
    path = place / "<i>λ.npz"
    np.savez(path, features=inputs.astype(np.float32), labels=np.array(NAMES)[labels])
    finish("probe", place / "out", f"--features={path}", *WORDS)
    return place / "out"


@pytest.fixture(scope="module")
def document(probed):
    return parse(probed / "index.html")


def test_the_answer_has_the_numbers_of_the_result(probed, document):
    record = result(probed)
    accuracies = [record[f"test_accuracy{end}"] for end in ("", "_low", "_high")]
    n_test = record["dataset"]["sizes"]["test"]
    (answer,) = (p for p in document.findall(".//p") if p.get("class") == "answer")
    actual = [float(number) for number in re.findall(r"\d+(?:\.\d+)?", text(answer))]
    expected = [record["d"], record["n_classes"], *np.round(accuracies, 4)]
    assert actual == [*expected[:3], 95, *expected[3:], n_test]


def test_every_figure_of_the_folder_is_on_the_page_as_a_png(probed, document):
    pngs = {path.read_bytes() for path in (probed / "figures").glob("*.png")}
    images = document.findall(".//img")
    sources = [image.get("src").removeprefix("data:image/png;base64,") for image in images]
    assert {base64.b64decode(source) for source in sources} == pngs
    assert len(images) == len(list((probed / "figures").glob("*.png"))) == 5
    assert all(image.get("alt") for image in images)


def test_the_page_loads_nothing(probed, document):
    assert not re.search(r"https?:|url\(|@import", (probed / "index.html").read_text())
    for element in document.iter():
        assert element.tag not in ("link", "iframe")
        assert element.get("src", "data:").startswith("data:")


def test_tables_have_every_class_lam_and_draw(probed, document):
    classes, draws, path = (cells(table) for table in document.findall(".//table"))
    expected = pd.read_csv(probed / "per_class.csv")
    assert [row[0] for row in classes] == expected["class"].tolist() == sorted(NAMES)
    assert [row[2] for row in classes] == [f"{value:.4f}" for value in expected.accuracy]
    assert len(draws) == len(pd.read_csv(probed / "learning_curve.csv"))
    assert [float(row[0]) for row in path] == pd.read_csv(probed / "path.csv").lam.tolist()


def test_names_of_the_users_data_are_escaped(probed, document):
    assert len(document.findall(".//script")) == 1  # the page's own
    assert not document.findall(".//i")
    assert "<i>λ.npz" in text(document.find(".//h1"))


def test_the_page_says_how_lam_was_chosen_and_how_many_fits_are_certified(probed, document):
    record = result(probed)
    words = text(document.find("body"))
    sizes = record["dataset"]["sizes"]
    assert f"highest accuracy on the {sizes['validation']} validation examples" in words
    assert f"Of {record['optima']['n']} fits, {record['optima']['n_converged']} are" in words
    assert f"{record['optima']['worst_gap']:.1e}" in words
    assert record["dataset"]["sha256"] in words


def test_the_result_lists_the_page(probed):
    assert "index.html" in result(probed)["files"]
    assert files(probed) >= set(result(probed)["files"])


def test_a_resumed_probe_writes_the_same_page(probed):
    """The command on the page leaves out flags such as --resume and --output_dir."""
    before = (probed / "index.html").read_bytes()
    features = f"--features={probed.parent / '<i>λ.npz'}"
    (probed / "index.html").unlink()
    finish("probe", probed, features, *WORDS, "--resume")
    assert (probed / "index.html").read_bytes() == before
    assert b"--resume" not in before
    assert b"--n_train=20" in before


ROWS = pd.DataFrame(
    {
        "name": ["set 10", "set 9", "<b>", "set 1"],
        "n": [900, 12_000, 50_000, 70],
        "gap": [2e-3, 1e-10, np.nan, 3e-7],
        "low": [-0.5, 0.25, np.nan, -0.75],
        "high": [0.5, 0.75, np.nan, 0.25],
        "page": ["a/index.html", "javascript:alert(1)", "b c/index.html", "λ/index.html"],
    }
)
COLUMNS = [
    Column("name", ("name", "page"), "link"),
    Column("n", "n", "count"),
    Column("gap", "gap", "share"),
    Column("interval", ("low", "high"), "signed"),
]


@pytest.fixture
def table_page(tmp_path):
    """A page with one table."""
    section = Section("Sets", table=ROWS, columns=COLUMNS)
    write_page(tmp_path, "Sets", "There are four sets.", [section], "probe", [])
    return tmp_path / "index.html"


def test_numbers_intervals_and_links_are_in_the_form_of_their_column(table_page):
    (table,) = parse(table_page).findall(".//table")
    assert cells(table)[0] == ["set 10", "900", "2.0e-03", "−0.5000 to +0.5000"]
    assert cells(table)[1][1] == "12,000"
    assert cells(table)[2] == ["<b>", "50,000", "–", "–"]
    addresses = [link.get("href") for link in table.findall(".//a")]
    expected = ["a/index.html", "javascript%3Aalert%281%29", "b%20c/index.html"]
    assert addresses == [*expected, "%CE%BB/index.html"]


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.mark.skipif(not CHROMIUM, reason="no browser to click in")
def test_a_click_sorts_a_column_and_a_second_click_reverses_it(table_page, tmp_path):
    """Numbers in names and cells are sorted by value, and rows without a number come last."""
    script = """
      const orders = [];
      for (const head of document.querySelectorAll("th"))
        for (const direction of ["ascending", "descending"]) {
          head.querySelector("button").click();
          const rows = [...document.querySelectorAll("tbody tr")];
          orders.push([head.ariaSort === direction, rows.map(row => row.cells[0].textContent)]);
        }
      document.body.replaceChildren(JSON.stringify(orders));
    """
    table_page.write_text(table_page.read_text() + f"<script>{script}</script>")
    words = ("--headless", "--no-sandbox", f"--user-data-dir={tmp_path / 'browser'}", "--dump-dom")
    line = [CHROMIUM, *words, table_page.as_uri()]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=True)
    dumped = html5lib.parse(done.stdout, namespaceHTMLElements=False)
    names = dict(zip("9aB1", ("set 9", "set 10", "<b>", "set 1"), strict=True))
    expected = ["B19a", "a91B", "1a9B", "B9a1", "91aB", "a19B", "1a9B", "9a1B"]
    assert json.loads(text(dumped.find("body"))) == [
        [True, [names[letter] for letter in order]] for order in expected
    ]
