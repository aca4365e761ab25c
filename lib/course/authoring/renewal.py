"""A lesson's notebook, made ready to commit: exercises in step, executed, normalised."""

import asyncio
import hashlib
import tempfile
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import nbformat

from lib.course.headless.jupyter import QUIET, brief, kill_group, nobodys
from lib.errors import CourseError
from lib.lesson.files import write_atomic
from lib.lesson.series import Lesson

KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
KEPT_METADATA = ("tags", "nbgrader", "nbval_reason", "jupyter")


def refresh(lesson: Lesson, run: bool = True, timeout: float = 900) -> bool:
    """Sync exercises, execute in place under the cpu preset, normalise; returns whether the file changed.

    Raises CourseError, and writes nothing, if a cell fails or prints to stderr.
    """
    before = lesson.path.read_text(encoding="utf-8")
    text = renewed(lesson, before, run, timeout)
    if text == before:
        return False
    try:
        write_atomic(lesson.path, text)
    except OSError as problem:
        raise CourseError(f"cannot write {lesson.path}: {problem.strerror}") from None
    return True


def renewed(lesson: Lesson, text: str, run: bool = True, timeout: float = 900) -> str:
    """The text that `refresh` would write for a notebook's text."""
    from lib.lesson.cells import restate, sync

    try:
        nb = nbformat.reads(text, as_version=4)
    except Exception:  # whatever the format's reader stumbles over
        raise CourseError(f"{lesson.path} is not a notebook; restore the file") from None
    nb = normalised(sync(nb, lesson.number))
    if run:
        execute(nb, lesson, timeout)
        nb = normalised(nb)
    else:
        restate(nb)
    return nbformat.writes(nb) + "\n"


def execute(nb: nbformat.NotebookNode, lesson: Lesson, timeout: float) -> None:
    """Run all cells in place, in the notebook's folder. Raises CourseError for an error or text on stderr."""
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    from lib.course.headless.this_python import Manager

    with tempfile.TemporaryDirectory() as home:
        env = {**nobodys(Path(home)), "COURSE_PRESET": "cpu", "CUDA_VISIBLE_DEVICES": "", "COURSE_HOME": home}
        client = NotebookClient(
            nb,
            timeout=timeout,
            kernel_name=KERNEL["name"],
            kernel_manager_class=Manager,
            extra_arguments=QUIET,
            resources={"metadata": {"path": str(lesson.path.parent)}},
        )
        try:
            _execute(client, env)
        except CellExecutionError as problem:
            where = next(n for n, cell in _code(nb) if any(o.output_type == "error" for o in cell.outputs))
            said = brief(problem.ename, problem.evalue)
            raise CourseError(f"{lesson.stem}, code cell {where}: {said}") from None
        except (CellTimeoutError, DeadKernelError) as problem:
            raise CourseError(f"{lesson.stem}: {str(problem).strip().splitlines()[0]}") from None
    for where, cell in _code(nb):
        for output in cell.outputs:
            if output.output_type == "stream" and output.name == "stderr":
                said = brief("it prints to stderr", output.text)
                raise CourseError(f"{lesson.stem}, code cell {where}: {said}")


def _execute(client, env: dict[str, str]) -> None:
    """Run the cells; Ctrl-C ends it.

    In the main thread nbclient takes SIGINT for itself, puts the kernel down and then waits for it for ever.
    """
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(lambda: asyncio.run(client.async_execute(env=env)))
        try:
            work.result()
        except KeyboardInterrupt:
            while not work.done():  # the kernel may only just be starting
                kernel = getattr(getattr(client.km, "provisioner", None), "pid", None)
                if kernel:
                    kill_group(kernel)
                wait([work], timeout=0.2)
            raise


def normalised(nb: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """One form for every committed notebook, in place: the same run gives the same file.

    One kernelspec, counts 1..n, ids from each cell's source (an exercise's from its nbgrader id), only the
    cell metadata the course uses, neighbouring texts of one stream joined.
    """
    nb.nbformat, nb.nbformat_minor = 4, 5
    nb.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    taken: set[str] = set()
    for cell in nb.cells:
        if "nbgrader" not in cell.metadata:  # those are the registry's, to the letter
            cell.source = cell.source.strip("\n")
        cell.id = _id(cell, taken)
        taken.add(cell.id)
        kept = {key: cell.metadata[key] for key in KEPT_METADATA if cell.metadata.get(key)}
        cell.metadata = nbformat.from_dict(kept)
    for count, cell in _code(nb):
        cell.outputs = _joined(cell.outputs)
        cell.execution_count = count if cell.source else None
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = count
    return nb


def _code(nb: nbformat.NotebookNode) -> list[tuple[int, nbformat.NotebookNode]]:
    """Code cells with their numbers, as a learner sees them after Run All."""
    cells = (cell for cell in nb.cells if cell.cell_type == "code" and cell.source.strip())
    return list(enumerate(cells, start=1))


def _id(cell: nbformat.NotebookNode, taken: set[str]) -> str:
    base = cell.metadata.get("nbgrader", {}).get("grade_id")
    if base is None:
        base = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:8]
    return next(name for n in range(1, 10_000) if (name := base if n == 1 else f"{base}-{n}") not in taken)


def _joined(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    joined: list[nbformat.NotebookNode] = []
    for output in outputs:
        last = joined[-1] if joined else None
        if last and output.output_type == "stream" == last.output_type and output.name == last.name:
            last.text += output.text
        else:
            output.pop("transient", None)
            joined.append(output)
    return joined
