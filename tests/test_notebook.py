"""The example notebook runs from top to bottom with the model that is shipped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import segmitos
from segmitos.detection.model import DEFAULT_MODEL

NOTEBOOK = Path(segmitos.__file__).parents[2] / "examples" / "api.ipynb"


def test_the_notebook_is_kept_without_outputs():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert sum(cell["cell_type"] == "code" for cell in cells) >= 8
    assert all(
        cell["outputs"] == [] and cell["execution_count"] is None
        for cell in cells
        if cell["cell_type"] == "code"
    )


# Warnings of the notebook machinery itself (event loops, missing debuggers) are not ours.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_notebook_runs(tmp_path, monkeypatch):
    if not DEFAULT_MODEL.is_file():
        pytest.skip(f"no default model at {DEFAULT_MODEL}")
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    for needed in ("ipykernel", "pandas", "torch", "lightning_fabric", "starlette", "sqlalchemy"):
        pytest.importorskip(needed)
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    printed = "\n".join(
        output.get("text", "")
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
    )
    assert "mitotic figures" in printed
    assert "smaller than the 1.41 x 1.41 mm window" in printed
    # The drawn plates are plain enough for any model worth shipping.
    found, extra = (int(printed.split(word)[0].split()[-1]) for word in (" found,", " too many"))
    assert found >= 4 and extra <= 4
    # Two trainings, the second with what was decided on the results of the first.
    assert printed.count("held-out F ") == 2
    exported = printed.split(" mitoses and ")[0].split()[-1]
    assert int(exported) >= 4
