"""`course doctor`: one line a finding, what to do where something is wrong, and no exception for anything."""

import builtins
import importlib.metadata
import json
import subprocess
import sys
import types

import pytest

from lib.course.cli import course, main
from lib.course.setup import machine, roles
from lib.course.setup.machine import Finding
from lib.sources import catalogue

PINS = {name: version for role in roles.requirements() for name, version in roles.pins(role).items()}


@pytest.fixture(autouse=True)
def no_sandbox_is_tried(monkeypatch):
    ran = types.SimpleNamespace(returncode=0, stderr="")
    monkeypatch.setattr(machine.subprocess, "run", lambda *_, **__: ran)


def look(name) -> Finding:
    [found] = [finding for finding in machine.examine() if finding.name == name]
    return found


def ended(*arguments):
    with pytest.raises(SystemExit) as end:
        main(["doctor", *arguments])
    return end.value.code


def test_a_sound_machine_on_one_screen(monkeypatch, capsys):
    monkeypatch.setattr(catalogue, "is_here", lambda package: True)
    monkeypatch.setattr(roles, "version", PINS.get)
    monkeypatch.delenv("COURSE_THREADS", raising=False)
    assert ended() == 0
    out = capsys.readouterr().out
    names = ["Python", "packages", "PyTorch", "device", "threads", "memory", "disk", "data", "kernel", "your folder"]
    assert [line[5:17].strip() for line in out.splitlines()[:-1]] == [*names, "grading"]
    assert len(out.splitlines()) < 24 and out.endswith("Everything needed is here.\n") and "FIX" not in out
    assert ended("--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is True and told["findings"][0]["name"] == "Python" and not told["findings"][0]["fix"]


def test_before_the_data_are_there(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "not" / "yet"))
    assert ended() == 1
    out = capsys.readouterr().out
    [line] = [line for line in out.splitlines() if " data " in line[:12]]
    assert line.startswith("FIX  data         0 of ") and line.endswith("->  course data")
    assert out.endswith(" to fix first.\n") and not (tmp_path / "not").exists()


def test_each_thing_that_is_wrong_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path))
    monkeypatch.setattr(machine.sys, "version_info", (3, 9, 1))
    assert look("Python").state == "missing" and "PYTHON=" in look("Python").fix
    monkeypatch.undo()
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path))
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=2**29))
    disk = look("disk")
    assert disk.state == "missing" and "0.5 GiB free" in disk.what and "COURSE_CACHE" in disk.fix
    monkeypatch.setenv("COURSE_THREADS", "many")
    assert look("threads").state == "missing" and look("threads").fix == "unset COURSE_THREADS"
    monkeypatch.setenv("COURSE_THREADS", "4")
    assert look("threads").state == "note"
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("COURSE_HOME", str(tmp_path / "file" / "home"))
    assert look("your folder").state == "note" and "COURSE_HOME" in look("your folder").fix


def test_packages_that_lack_or_differ(monkeypatch):
    def version(name):
        if name == "rich":
            raise importlib.metadata.PackageNotFoundError(name)
        return "0.1" if name == "click" else real(name)

    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", version)
    assert look("packages").state == "missing" and look("packages").what.endswith("no rich")
    assert look("packages").fix == roles.adding("learn")
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.1")
    assert look("packages").state == "note" and "0.1 for" in look("packages").what


def test_it_looks_at_the_roles_that_are_here(tmp_path, monkeypatch):
    """A role is here where make has set it up, or where all its packages are; whose package lacks is who is named."""
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    have = {name: PINS[name] for name in roles.pins("learn")}
    monkeypatch.setattr(roles, "version", lambda name: have.get(name, ""))
    count = len(have) - 1  # PyTorch has a line of its own
    assert look("packages") == Finding("packages", "ok", f"all {count} for learn as pinned")
    assert look("grading") == Finding("grading", "ok", f"not set up here; {roles.adding('teach')} adds it")
    (tmp_path / ".ready-teach").touch()
    told, more = look("packages"), count + len(roles.pins("teach"))
    assert told.state == "missing" and told.what.startswith(f"{count} of {more} for learn and teach; no ")
    assert told.fix == roles.adding("teach")
    (tmp_path / ".ready-teach").unlink()
    for role in ("teach", "site", "develop"):
        have |= {name: PINS[name] for name in roles.pins(role)}
    assert look("packages").what == f"all {len(PINS) - 1} for learn, teach, site and develop as pinned"
    assert look("grading").what == "the sandbox starts"
    have["sphinx"] = "0.1"
    assert look("packages").state == "note" and "1 not as pinned: sphinx 0.1 for" in look("packages").what


@pytest.mark.parametrize("error", [ModuleNotFoundError("No module named 'torch'", name="torch"), OSError("bad ELF")])
def test_no_torch_is_a_finding(monkeypatch, error):
    def imported(name, *rest):
        if name == "torch":
            raise error
        return real(name, *rest)

    real = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", imported)
    found = machine.examine()
    assert next(f for f in found if f.name == "PyTorch").state == "missing" and not machine.healthy(found)
    assert "device" not in [f.name for f in found]


def test_another_pythons_kernel_is_noticed(monkeypatch):
    import jupyter_client.kernelspec as specs

    def spec(*argv):
        return lambda self, name: types.SimpleNamespace(argv=argv, resource_dir="/somewhere")

    monkeypatch.setattr(specs.KernelSpecManager, "get_kernel_spec", spec("/opt/old/bin/python", "-m"))
    assert look("kernel").state == "note" and "/opt/old/bin/python" in look("kernel").what
    monkeypatch.setattr(specs.KernelSpecManager, "get_kernel_spec", spec(sys.executable, "-m"))
    assert look("kernel").state == "ok"


def test_no_sandbox_is_only_a_note(monkeypatch):
    def fails(*_, **__):
        raise subprocess.TimeoutExpired("bwrap", 20)

    monkeypatch.setattr(machine.subprocess, "run", fails)
    assert look("grading").state == "note"


def test_a_look_that_breaks_is_a_note(monkeypatch):
    monkeypatch.setattr(machine, "cores", lambda: 1 / 0)
    assert look("threads").state == "note" and "ZeroDivisionError" in look("threads").what


def test_a_half_made_environment_is_one_line(monkeypatch, capsys):
    def broken(ctx, name):
        raise ModuleNotFoundError("No module named 'filelock'", name="filelock")

    monkeypatch.setattr(course, "get_command", broken)
    assert ended() == 2
    says = "course: `course doctor` needs packages that are not installed (filelock); add them with: "
    assert capsys.readouterr().err == f"{says}{roles.adding('learn')}\n"
