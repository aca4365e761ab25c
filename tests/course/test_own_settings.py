"""What the author of a machine has set up for other work changes neither lessons nor results."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from lib.course.authoring.renewal import refresh
from lib.course.commands import lab
from lib.course.headless.jupyter import nobodys
from lib.course.headless.this_python import ThisPython
from lib.lesson.series import Lesson
from lib.sources.places import ROOT

CELLS = [
    "1\n2",  # shown twice where somebody's IPython shows every expression
    "import sys\nprint(sys.executable)",
    "import matplotlib, matplotlib.pyplot as plt\n"
    "print(plt.rcParams['figure.dpi'], plt.rcParams['lines.linewidth'], matplotlib.get_backend())",
    "print('junk' in globals(), __debug__, sys.warnoptions)",
    "from lib.lesson import start\nlesson = start('02', 'smoke')\nplt.rcParams['lines.linewidth']",
]
SHOWN = ["2", f"{sys.executable}\n", "100.0 1.5 module://matplotlib_inline.backend_inline\n", "False True []\n",
         "Lesson 02, attention: preset smoke.\n1.5"]  # fmt: skip


@pytest.fixture
def odd_home(tmp_path, monkeypatch):
    """Somebody's home, with a taste of its own, and folders with braces and brackets in their names."""
    home, spec = tmp_path / "home", {"argv": ["false"], "display_name": "another", "language": "python"}
    for place in (home / ".local/share/jupyter", tmp_path / "jupyter", home / "Library/Jupyter"):
        (place / "kernels/python3").mkdir(parents=True)
        (place / "kernels/python3/kernel.json").write_text(json.dumps(spec))
        (place / "kernels/mine").mkdir()
        (place / "kernels/mine/kernel.json").write_text(json.dumps(spec))
    profile = home / ".ipython/profile_default"
    (profile / "startup").mkdir(parents=True)
    (profile / "startup/00.py").write_text("junk = 1\nprint('junk')")
    for name in ("ipython_config.py", "ipython_kernel_config.py"):
        (profile / name).write_text("c.InteractiveShell.ast_node_interactivity = 'all'\n"
                                    "c.InlineBackend.rc = {'figure.dpi': 33}\n")  # fmt: skip
    (home / "start.py").write_text("junk = 2\nprint('junk')")
    for folder in (home / ".config/matplotlib", home / ".matplotlib", home):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "matplotlibrc").write_text("figure.dpi: 33\nlines.linewidth: 9\nno.such.key: 1\n")
    odd = tmp_path / "a{b}{0}[c] {"
    odd.mkdir()
    for name, value in {
        "HOME": home, "JUPYTER_PATH": tmp_path / "jupyter", "JUPYTER_PREFER_ENV_PATH": "0", "MPLBACKEND": "svg",
        "IPYTHONDIR": home / ".ipython", "MATPLOTLIBRC": home, "MPLCONFIGDIR": home / ".config/matplotlib",
        "PYTHONSTARTUP": home / "start.py", "PYTHONWARNINGS": "error", "PYTHONOPTIMIZE": "1", "TMPDIR": odd,
    }.items():  # fmt: skip
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr("tempfile.tempdir", None)
    return odd


def lesson(folder: Path) -> Path:
    cells = [new_markdown_cell("# A lesson"), *map(new_code_cell, CELLS)]
    path = folder / "02_at{te}ntion.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    return path


def shown(path: Path) -> list[str]:
    """What each cell shows."""
    cells = nbformat.read(path, as_version=4).cells
    return ["".join(o.text if o.output_type == "stream" else o.data["text/plain"] for o in cell.outputs)
            for cell in cells if cell.cell_type == "code"]  # fmt: skip


def test_a_headless_run(odd_home):
    path = lesson(odd_home)
    line = [sys.executable, "-c", "from lib.course.cli import main; main()", "run", path.name, "--out", "o{u}t"]
    ran = subprocess.run(line, cwd=odd_home, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert shown(odd_home / "o{u}t" / path.name) == SHOWN
    assert 'href="02_at%7Bte%7Dntion.ipynb"' in (odd_home / "o{u}t/index.html").read_text()


def test_a_refreshed_lesson_and_nbval(odd_home):
    path = lesson(odd_home)
    assert refresh(Lesson(path)) and shown(path) == SHOWN
    shutil.copyfile(ROOT / "conftest.py", odd_home / "conftest.py")
    (odd_home / "pytest.ini").write_text("[pytest]\naddopts = -p lib.errors -p no:cacheprovider\n")
    line = [sys.executable, "-m", "pytest", "-q", "--nbval", "--nbval-current-env", path.name]
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONWARNINGS", "PYTHONOPTIMIZE")}
    ran = subprocess.run(line, cwd=odd_home, env=env, capture_output=True, text=True)
    assert ran.returncode == 0 and f"{len(CELLS)} passed" in ran.stdout, ran.stdout + ran.stderr


def test_jupyterlab_takes_this_python_for_python3_and_others_as_they_are(odd_home, tmp_path):
    specs = ThisPython().get_all_specs()
    assert specs["python3"]["spec"]["argv"][0] == sys.executable and specs["mine"]["spec"]["argv"] == ["false"]
    assert ThisPython().get_kernel_spec("python3").argv[0] == sys.executable
    env = nobodys(tmp_path)
    assert not {"PYTHONSTARTUP", "PYTHONWARNINGS", "PYTHONOPTIMIZE", "MPLBACKEND"} & set(env)
    program = lab.LAB.replace("main()", "print(sys.modules['rfc3987_syntax'], bool(main))")
    ran = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True)
    assert ran.stdout == "None True\n", ran.stderr
    place, _, name = lab.KERNEL.rpartition(".")
    assert (ThisPython.__module__, ThisPython.__name__) == (place, name)
    ran = subprocess.run([sys.executable, "-c", lab.LAB, "--version"], env=env, capture_output=True, text=True)
    assert ran.returncode == 0 and ran.stdout[0].isdecimal(), ran.stderr


def test_an_old_notebooks_options_are_answered_in_a_line(tmp_path):
    """Where it asks for a second return type, which is no more."""
    cells = ["from lib.lesson import start\nfrom lib.transformer import Config, Transformer\nimport torch\n"
             "lesson = start('02', 'smoke')\nmodel = Transformer(Config.llama(vocab_size=5, block_size=8, n_layer=1, "
             "n_head=2, d_model=8))\ntokens = torch.tensor([[1, 2]])",
             "model(tokens, return_attention=True)", "model.hidden(tokens)",
             "from lib.attention import attention\nattention(*torch.ones(3, 2, 4), return_weights=True)",
             "model(tokens, frobnicate=True)", "print(model.last_hidden_state(tokens).shape)"]  # fmt: skip
    path = tmp_path / "02_attention.ipynb"
    nbformat.write(new_notebook(cells=list(map(new_code_cell, cells))), path)
    from nbclient import NotebookClient

    nb = nbformat.read(path, as_version=4)
    NotebookClient(nb, allow_errors=True, kernel_manager_class="lib.course.headless.this_python.Manager").execute()
    said = ["\n".join(o.get("traceback", [])) for cell in nb.cells[1:5] for o in cell.outputs]
    assert len(said) == 4
    ways = ("with recorded(model) as maps", "model.last_hidden_state(tokens)", "attention_weights(q, k, mask)")
    for words, text in zip(ways, said, strict=False):
        assert words in text.splitlines()[-1], text
    assert "is gone" not in said[3] and "torch.Size([1, 2, 8])" in nb.cells[5].outputs[0].text
