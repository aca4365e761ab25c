"""Read a submission's file: bytes from anybody, down to the cells that matter. Only the standard library is used.

Run as a script it reads one file under limits on memory and time: that is how large files are read, since a few
megabytes of JSON can be made to fill gigabytes.
"""

import codecs
import hashlib
import json
import os
import stat
import subprocess
import sys
from dataclasses import dataclass, field

MOST = 128 * 2**20  # bytes of a file; a notebook full of pictures has ten million
SMALL = 4 * 2**20  # read in this process up to here
MOST_CELL = 200_000  # characters of one cell's source
MOST_CELLS = 2_000
MOST_CODE = 1_000_000  # characters of all cells


@dataclass(frozen=True)
class Cell:
    """A code cell: what it holds, and the grade_id in its metadata ("" if none). Nothing else is looked at."""

    source: str
    grade_id: str = ""


@dataclass(frozen=True)
class File:
    """What a file held. problem: why it could not be read, "" if it could."""

    digest: str = ""
    cells: tuple[Cell, ...] = field(default=())
    problem: str = ""


def read(path: str | os.PathLike) -> File:
    """A notebook's code cells. Never raises for what the file is or holds, and follows no link."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        is_link = os.path.islink(path)
        return File(problem="it is a link to another file" if is_link else f"it cannot be opened ({error.strerror})")
    about = os.fstat(handle)
    if not stat.S_ISREG(about.st_mode):
        os.close(handle)
        return File(problem="it is no ordinary file")
    with os.fdopen(handle, "rb") as file:
        if about.st_size > MOST:
            size = f"{about.st_size / 2**20:.0f} MB, the limit is {MOST // 2**20}"
            return File(problem=f"it has {size}; clear its outputs")
        data = file.read(MOST + 1)
    digest = hashlib.sha256(data).hexdigest()
    if len(data) <= SMALL:
        cells, problem = parse(data)
    else:
        cells, problem = _parse_apart(data)
    return File(digest, tuple(Cell(*c) for c in cells), problem)


def parse(data: bytes) -> tuple[list[tuple[str, str]], str]:
    """[(source, grade_id)] of the code cells, and what is wrong with the file, "" if nothing is."""
    if not data.strip():
        return [], "it is empty"
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = data.decode("utf-16" if wide else "utf-8-sig", "replace")
    try:
        nb = json.loads(text)
    except RecursionError:
        return [], "it is nested too deeply to be a notebook"
    except ValueError as error:
        mark = any(f"\n{m} " in text for m in ("<<<<<<<", ">>>>>>>"))
        where = f"line {error.lineno}" if isinstance(error, json.JSONDecodeError) else "somewhere"
        why = "it has a merge conflict's marks in it" if mark else f"it is not JSON ({where})"
        return [], f"{why}; save it again from JupyterLab"
    cells = nb.get("cells") if isinstance(nb, dict) else None
    if cells is None and isinstance(nb, dict) and isinstance(nb.get("worksheets"), list):  # nbformat 3
        sheets = [sheet.get("cells") for sheet in nb["worksheets"] if isinstance(sheet, dict)]
        cells = [cell for sheet in sheets if isinstance(sheet, list) for cell in sheet]
    if not isinstance(cells, list):
        return [], "it is JSON, but no notebook"
    if not cells:
        return [], "it has no cells"
    if len(cells) > MOST_CELLS:
        return [], f"it has more than {MOST_CELLS:,} cells"
    found = []
    for cell in cells:
        if isinstance(cell, dict) and cell.get("cell_type") == "code":
            source = cell.get("source", cell.get("input", ""))
            if isinstance(source, list):
                source = "".join(line for line in source if isinstance(line, str))
            if isinstance(source, str):
                if len(source) > MOST_CELL:  # so that its exercise says so
                    source = f'raise ValueError("this cell has {len(source):,} characters; {MOST_CELL:,} are read")'
                found.append((source.encode("utf-8", "replace").decode(), _grade_id(cell)))
    if sum(len(source) for source, _ in found) > MOST_CODE:
        return [], f"it has more than {MOST_CODE:,} characters of code"
    return found, "" if found else "it has no code cells"


def _grade_id(cell: dict) -> str:
    metadata = cell.get("metadata")
    nbgrader = metadata.get("nbgrader") if isinstance(metadata, dict) else None
    grade_id = nbgrader.get("grade_id") if isinstance(nbgrader, dict) else None
    return grade_id if isinstance(grade_id, str) and len(grade_id) < 200 else ""


def _parse_apart(data: bytes) -> tuple[list, str]:
    try:
        done = subprocess.run([sys.executable, "-I", __file__], input=data, capture_output=True, timeout=120)
        if done.returncode == 0:
            return json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        pass
    return [], "reading it takes more memory or time than it may; clear its outputs"


def _main() -> None:
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (2 * 2**30, 2 * 2**30))
        resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
    except (ImportError, ValueError, OSError):
        pass
    json.dump(parse(sys.stdin.buffer.read()), sys.stdout)


if __name__ == "__main__":
    _main()
