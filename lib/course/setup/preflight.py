"""What `make setup` looks at before it installs: Python, disk, and what an earlier set-up has left in .venv.

Run by whatever Python there is, before anything is installed: old syntax and the standard library only. Says in one
line what is wrong and what to do, with exit status 1; an environment that does not run is cleared away.
"""

import os
import shutil
import subprocess
import sys

ROOM = 2.0  # GB that the packages need without CUDA
VENV = ".venv"


def main():
    here = "%d.%d" % tuple(sys.version_info[:2])
    if not (3, 11) <= tuple(sys.version_info[:2]) < (3, 14):
        return "Python 3.11 to 3.13 is needed, this is %s; choose another with: make PYTHON=python3.12 ..." % here
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        return "this Python cannot make environments; on Debian and Ubuntu: apt install python%s-venv" % here
    problem = half_made()
    if problem:
        return problem
    free = shutil.disk_usage(".").free / 1e9
    if free < ROOM and not os.path.isdir(VENV):
        return ("%.1f GB of disk are free here, the packages need %.0f (with CUDA, 8); free some, or move this folder "
                "to a larger disk" % (free, ROOM))
    if not os.access(".", os.W_OK):
        return "this folder cannot be written; copy the course into a folder of your own"
    return None


def half_made():
    """Clear away an environment that does not run; what is wrong if it is no environment at all."""
    if not os.path.lexists(VENV):
        return None
    if os.path.islink(VENV) or not os.path.isdir(VENV):
        return "%s is no folder; move it away" % VENV
    if os.listdir(VENV) and not os.path.exists(os.path.join(VENV, "pyvenv.cfg")):
        return "%s is no Python environment; move it away, the course makes its own" % VENV
    program = os.path.join(VENV, "Scripts" if os.name == "nt" else "bin", "python")
    try:
        runs = subprocess.call([program, "-c", "import pip"], stderr=subprocess.DEVNULL) == 0
    except OSError:
        runs = False
    if not runs:
        print("%s does not run (broken off halfway, or moved): it is made anew" % VENV)
        shutil.rmtree(VENV)
    elif os.path.exists(os.path.join(VENV, ".ready")):
        print("%s was made by an earlier version, with everything for everybody: it is taken up as it is" % VENV)
    return None


if __name__ == "__main__":
    sys.exit(main())
