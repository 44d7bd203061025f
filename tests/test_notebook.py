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
predictions = [m.predict(data.test.inputs).tolist() for m in (kept, model)]
numbers = [int(chosen), path.converged.tolist(), accuracy["validation"].mean.tolist()]
numbers += [len(both.train.labels), list(map(float, test)), counts.tolist(), predictions]
json.dump(numbers, open("variables.json", "w"))
"""


@pytest.mark.slow
def test_the_notebook_runs_on_digits(tmp_path):
    notebook = nbformat.read(PATH, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(VARIABLES))
    folders = {name: str(tmp_path) for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR")}
    env = environment(PYTHONPATH=str(ROOT), LINEAR_CIFAR_FEATURES="", **folders)
    NotebookClient(notebook, timeout=600, record_timing=False).execute(cwd=str(tmp_path), env=env)
    numbers = json.loads((tmp_path / "variables.json").read_text())
    chosen, converged, validation, n_fitted, test, counts, predictions = numbers
    assert all(converged)
    assert validation[chosen] == max(validation)
    assert 0 < chosen < len(validation) - 1  # otherwise the path would be too short
    assert (n_fitted, test[3], np.sum(counts)) == (1797 - 359, 359, 359)
    assert test[0] == pytest.approx(np.trace(counts) / 359)
    assert test[0] == pytest.approx(0.9666, abs=0.009)  # three examples
    assert predictions[0] == predictions[1]
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2


def test_the_notebook_is_stored_as_it_ran():
    code = [cell for cell in nbformat.read(PATH, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    kinds = {output.output_type for cell in code for output in cell.outputs}
    assert kinds == {"stream", "execute_result"}  # no error, and nothing on the way
    assert PATH.stat().st_size < 300_000
