"""For every pytest run here, nbval's included: the same preset, no GPU, and a home that is nobody's."""

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

from lib.course.headless.jupyter import PERSONAL, nobodys

HOME = tempfile.mkdtemp(prefix="course-home-")
for name in PERSONAL:
    os.environ.pop(name, None)
os.environ |= nobodys(Path(HOME)) | {
    "COURSE_PRESET": "cpu",
    "CUDA_VISIBLE_DEVICES": "",
    "COURSE_HOME": HOME,  # a learner's own guesses must not change outputs
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    "JUPYTER_PLATFORM_DIRS": "1",
    "JUPYTER_PATH": "",
    "JUPYTER_PREFER_ENV_PATH": "1",
}

# What is compiled once need not be compiled anew by each of the hundreds of processes that tests start.
os.environ["PYTHONDONTWRITEBYTECODE"], sys.dont_write_bytecode = "", False
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    # Side by side, each has its share of the cores, as in the headless runner: two lessons that train on two threads
    # each take more than twice as long on two cores.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(workers))))


def pytest_collection_modifyitems(items):
    """Lessons that take longest come first, so that two side by side end at about the same time."""
    from lib.lesson.expectations import seconds

    def cost(item):
        return (seconds(item.path.name[:2], "cpu") or 0) if item.path.suffix == ".ipynb" else 0

    items.sort(key=cost, reverse=True)


atexit.register(shutil.rmtree, os.environ["COURSE_HOME"], ignore_errors=True)
