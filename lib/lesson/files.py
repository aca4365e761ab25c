"""Small files, written whole or not at all."""

import contextlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock

from lib.errors import CourseError

T = TypeVar("T")


def write_atomic(path: Path, text: str) -> None:
    """Write text so that a reader sees the old file or the new one, never half of either. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        # mkstemp makes the file private; a new file should have the mode that open() would give it.
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask()
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        os.chmod(part, mode)
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise


def write_json(path: Path, data: Any) -> None:
    write_atomic(path, json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def locked(path: Path) -> FileLock:
    """A lock to hold while a file is read and written anew, so that two kernels do not undo each other's work.

    Entering it raises OSError where the folder cannot be written, or another holds the lock for ten seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path.with_name(f".{path.name}.lock"), timeout=10)


def append_line(path: Path, line: str) -> None:
    """Add a line at a file's end, below whatever is there, be it half a line. Raises OSError."""
    with locked(path), path.open("ab+") as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            line = line if file.read(1) == b"\n" else f"\n{line}"
        file.write(f"{line}\n".encode())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def no_number(constant: str) -> None:
    """For json.loads: NaN and Infinity are no JSON."""
    raise ValueError(f"{constant} is no JSON")


def read_kept(path: Path, build: Callable[..., T], what: str) -> dict[str, T]:
    """What a learner's own file keeps, {key: build(**record)}; {} if there is none.

    A damaged file is set aside with one line, so that nothing is lost. what: its name in that line. Raises OSError for
    a file that is there and cannot be read now: who writes it anew would lose what it keeps.
    """
    try:
        kept = json.loads(path.read_text(encoding="utf-8"), parse_constant=no_number)
        return {str(key): build(**record) for key, record in kept.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, AttributeError, CourseError, RecursionError):
        aside = next(p for n in range(1, 1000) if not (p := path.with_suffix(f".damaged-{n}")).exists())
        try:
            path.rename(aside)
            print(f"{what} could not be read; the file is set aside as {aside}.")
        except OSError:
            print(f"{what} in {path} could not be read; move the file away to start afresh.")
        return {}


def read_or_tell(path: Path, build: Callable[..., T], what: str) -> dict[str, T]:
    """The same for who only reads: a file that cannot be read now costs one line, and nothing is lost."""
    try:
        return read_kept(path, build, what)
    except OSError as problem:
        print(f"({what} cannot be read, {path}: {problem.strerror or problem}; it stays as it is.)")
        return {}
