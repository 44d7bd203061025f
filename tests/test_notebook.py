"""The notebook is run from its first cell to its last, and what it found is looked at."""

import json

import nbformat
import numpy as np
import pytest
from commands import ROOT, environment
from nbclient import NotebookClient

PATH = ROOT / "docs" / "probe.ipynb"
FOUND = """
import json
json.dump(
    {
        "lam": lam.tolist(),
        "chosen": int(chosen),
        "converged": path.converged.tolist(),
        "validation": accuracy["validation"].mean.tolist(),
        "n_fitted": len(both.train.labels),
        "test": list(map(float, test)),
        "counts": counts.tolist(),
        "same": bool((kept.predict(data.test.inputs) == model.predict(data.test.inputs)).all()),
    },
    open("found.json", "w"),
)
"""


def stored():
    return nbformat.read(PATH, as_version=4)


def executed(folder, **changes):
    """The notebook as it is after its run, and what its variables are then."""
    notebook = stored()
    notebook.cells.append(nbformat.v4.new_code_cell(FOUND))
    # What Jupyter and IPython write goes into the folder; between processes that need no network.
    written = {"IPYTHONDIR": str(folder), "JUPYTER_RUNTIME_DIR": str(folder)}
    env = environment(PYTHONPATH=str(ROOT), **written, **changes)
    client = NotebookClient(notebook, timeout=600, record_timing=False)
    client.execute(cwd=str(folder), env=env)
    del notebook.cells[-1]
    return notebook, json.loads((folder / "found.json").read_text())


def printed(notebook):
    """All text that cells left."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(output.text for output in outputs if output.output_type == "stream")


def check_found(found, n_test):
    assert all(found["converged"])
    best = found["validation"][found["chosen"]]
    assert best == max(found["validation"])
    assert 0 < found["chosen"] < len(found["lam"]) - 1  # or the path would be too short
    counts = np.array(found["counts"])
    assert counts.sum() == found["test"][3] == n_test
    assert np.trace(counts) / n_test == pytest.approx(found["test"][0], abs=1e-12)
    assert found["same"]


@pytest.mark.slow
def test_the_notebook_tells_of_digits(tmp_path):
    notebook, found = executed(tmp_path, LINEAR_CIFAR_FEATURES="")
    check_found(found, n_test=359)
    assert found["n_fitted"] == 1797 - 359
    assert found["test"][0] == pytest.approx(0.9666, abs=0.009)  # three examples
    figures = [o for cell in notebook.cells for o in cell.get("outputs", []) if "data" in o]
    assert ["image/png" in figure.data for figure in figures] == [True, True]


def test_the_notebook_is_stored_as_it_ran():
    cells = stored().cells
    assert len(cells) == 10
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [1, 2, 3, 4, 5]
    kinds = {output.output_type for cell in code for output in cell.outputs}
    assert kinds == {"stream", "execute_result"}
    assert PATH.stat().st_size < 300_000
