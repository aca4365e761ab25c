"""What an author or a learner has set up for themselves changes neither lessons nor results."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from lib.course.authoring.renewal import refresh
from lib.lesson.series import Lesson

COURSE = [sys.executable, "-c", "from lib.course.cli import main; main()"]
LOOKS = ("import os, sys, matplotlib\nfrom matplotlib import rcParams\nrcParams['lines.linewidth']\n"
         "matplotlib.get_backend().lower(), os.path.realpath(sys.prefix), rcParams['lines.linewidth']")  # fmt: skip
PARAMETERS = 'preset = "auto"\nseed = 0'


@pytest.fixture
def somebody(tmp_path, monkeypatch):
    """A home with settings of everything, and a kernel called python3 that is none of ours."""
    home = tmp_path / "home of {somebody}"
    profile = home / "ipython" / "profile_default"
    (profile / "startup").mkdir(parents=True)
    (profile / "ipython_config.py").write_text("c.InteractiveShell.ast_node_interactivity = 'all'\n")
    (profile / "ipython_kernel_config.py").write_text("c.InteractiveShell.ast_node_interactivity = 'all'\n")
    (profile / "startup" / "first.py").write_text("print('hello from my startup file')\n")
    (home / "startup.py").write_text("print('hello from PYTHONSTARTUP')\n")
    (home / "matplotlibrc").write_text("lines.linewidth: 17\n")
    for place in ("data", "path"):
        kernel = home / place / "kernels" / "python3"
        kernel.mkdir(parents=True)
        spec = {"argv": ["/bin/false"], "display_name": "x", "language": "python"}
        (kernel / "kernel.json").write_text(json.dumps(spec))
    (home / "config").mkdir()
    for kind in ("jupyter_config.json", "jupyter_client_config.json"):
        (home / "config" / kind).write_text(json.dumps({"KernelManager": {"shutdown_wait_time": -1}}))
    settings = {"IPYTHONDIR": home / "ipython", "PYTHONSTARTUP": home / "startup.py", "JUPYTER_DATA_DIR": home / "data",
                "JUPYTER_PATH": home / "path", "JUPYTER_CONFIG_DIR": home / "config", "MPLBACKEND": "svg",
                "MATPLOTLIBRC": home / "matplotlibrc", "TMPDIR": home}  # fmt: skip
    for name, value in settings.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.delenv("JUPYTER_PREFER_ENV_PATH", raising=False)
    return home


def shown(path: Path) -> str:
    nb = nbformat.read(path, as_version=4)
    outputs = [o for cell in nb.cells if cell.cell_type == "code" for o in cell.outputs]
    return "".join(o.get("text", "") or o.data["text/plain"] for o in outputs)


def lesson(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    cells = [new_markdown_cell("# A lesson"), *map(new_code_cell, (PARAMETERS, "1\n2", LOOKS))]
    cells[1].metadata["tags"] = ["parameters"]
    nbformat.write(new_notebook(cells=cells), folder / name)
    return folder / name


WANT = f"2('module://matplotlib_inline.backend_inline', {os.path.realpath(sys.prefix)!r}, 1.5)"


def plain(text: str) -> str:
    return text.replace("'inline'", "'module://matplotlib_inline.backend_inline'")


def test_refresh_gives_what_it_gives_for_everybody(somebody, tmp_path):
    path = lesson(tmp_path / "lessons", "02_attention.ipynb")
    assert refresh(Lesson(path))
    assert plain(shown(path)) == WANT
    assert os.environ["MPLBACKEND"] == "svg", "this process has its own settings back"


def test_run_gives_what_it_gives_for_everybody_in_a_folder_with_braces(somebody, tmp_path):
    folder = tmp_path / "my {work} {0} {}"
    path = lesson(folder, "my {lesson}.ipynb")
    ran = subprocess.run([*COURSE, "run", str(path), "--out", str(folder / "out {x}")], cwd=folder, capture_output=True,
                         text=True, timeout=300)  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert plain(shown(folder / "out {x}" / "my {lesson}.ipynb")) == WANT


def test_the_makefiles_nbval_reads_nobodys_settings():
    text = (Path(__file__).parents[2] / "Makefile").read_text()
    line = text.split("NOBODY = ")[1].split("NBVAL = ")[0]
    names = "IPYTHONDIR JUPYTER_CONFIG_DIR JUPYTER_DATA_DIR JUPYTER_PATH PYTHONSTARTUP MATPLOTLIBRC MPLBACKEND"
    assert all(name in line for name in [*names.split(), "JUPYTER_PREFER_ENV_PATH"])
    assert "NBVAL = $(NOBODY) $(BIN)/python -m pytest --nbval" in text
