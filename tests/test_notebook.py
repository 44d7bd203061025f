"""The notebook runs from its first cell to its last, and its numbers are right."""

import json

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

from tests.commands import ROOT, environment

PATH = ROOT / "docs" / "probe.ipynb"
VARIABLES = """
import json
json.dump(
    {
        "chosen": int(chosen),
        "converged": path.converged.tolist(),
        "validation": accuracy["validation"].mean.tolist(),
        "n_fitted": len(both.train.labels),
        "test": list(map(float, test)),
        "counts": counts.tolist(),
        "same": bool((kept.predict(data.test.inputs) == model.predict(data.test.inputs)).all()),
    },
    open("variables.json", "w"),
)
"""


@pytest.mark.slow
def test_the_notebook_runs_on_digits(tmp_path):
    notebook = nbformat.read(PATH, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(VARIABLES))
    folders = {name: str(tmp_path) for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR")}
    env = environment(PYTHONPATH=str(ROOT), LINEAR_CIFAR_FEATURES="", **folders)
    NotebookClient(notebook, timeout=600, record_timing=False).execute(cwd=str(tmp_path), env=env)
    variables = json.loads((tmp_path / "variables.json").read_text())
    validation, chosen = variables["validation"], variables["chosen"]
    assert all(variables["converged"])
    assert validation[chosen] == max(validation)
    assert 0 < chosen < len(validation) - 1  # otherwise the path would be too short
    assert variables["n_fitted"] == 1797 - 359
    accuracy, counts = variables["test"][0], np.array(variables["counts"])
    assert counts.sum() == variables["test"][3] == 359
    assert accuracy == pytest.approx(np.trace(counts) / 359)
    assert accuracy == pytest.approx(0.9666, abs=0.009)  # three examples
    assert variables["same"]
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2


def test_the_notebook_is_stored_as_it_ran():
    code = [cell for cell in nbformat.read(PATH, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    kinds = {output.output_type for cell in code for output in cell.outputs}
    assert kinds == {"stream", "execute_result"}  # no error, and nothing on the way
    assert PATH.stat().st_size < 300_000
