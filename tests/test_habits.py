"""What an open project keeps beside its code is whole and agrees with it: licences, versions, the hosted check."""

import fnmatch
import hashlib
import re
import tomllib

import pytest
import yaml
from packaging.specifiers import SpecifierSet

from lib.course.authoring.learners_copy import release
from lib.sources import catalogue
from lib.sources.places import DATA, ROOT

LICENCES = ("LICENSE", "LICENSE-lessons", "THIRD_PARTY.md")
APACHE = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"  # of the text as Apache publishes it


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def project() -> dict:
    return tomllib.loads(text("pyproject.toml"))["project"]


def table(page: str, head: str) -> list[list[str]]:
    """The rows of the table of a Markdown page that has this head."""
    [body] = re.findall(rf"^{re.escape(head)}\n\|[-|]+\|\n((?:\|.*\|\n)+)", page, re.M)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in body.splitlines()]


# --- licences ---


def test_the_code_is_under_the_whole_apache_licence():
    assert hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest() == APACHE
    assert project()["license"] == "Apache-2.0"
    assert tuple(project()["license-files"]) == LICENCES


def test_the_lessons_name_their_licence_and_what_it_covers():
    page = text("LICENSE-lessons")
    for named in ("SPDX-License-Identifier: CC-BY-4.0", "https://creativecommons.org/licenses/by/4.0/legalcode"):
        assert named in page
    covered = page.partition("What it covers\n")[2].partition("What it does not cover\n")[0]
    for path in re.findall(r"[\w/]+(?:/|\.md)(?=[\s,:;)])", covered):
        assert (ROOT / path).exists(), path
    pages = {path.name for path in ROOT.glob("*.md")}
    assert pages == set(re.findall(r"(?<![/\w])\w+\.md", covered)), "a page at the top that no licence names"


def test_everything_fetched_is_named_with_its_licence():
    rows = table(text("THIRD_PARTY.md"), "| package | version | what | licence | made by, or taken from |")
    assert rows == [[p.name, p.version, p.what, p.licence, p.upstream] for p in catalogue.packages().values()]


def test_every_file_in_data_says_how_it_came_about():
    rows = table(text("THIRD_PARTY.md"), "| file | licence | how it came about |")
    there = {path.name for path in DATA.iterdir() if not path.name.startswith((".", "_"))}
    assert {name.strip("`") for name, _, _ in rows} == there and len(rows) == len(there)
    assert all(licence and origin for _, licence, origin in rows)


def test_learners_get_the_licences(tmp_path):
    release(tmp_path / "copy", ["00"])
    for name in LICENCES:
        assert (tmp_path / "copy" / name).read_bytes() == (ROOT / name).read_bytes()
        assert f"`{name}`" in (tmp_path / "copy" / "README.md").read_text(encoding="utf-8")


def test_a_container_gets_the_licences_too():
    hidden = [line for line in text(".dockerignore").split() if not line.startswith(("#", "!"))]
    assert "build" in hidden
    for name in (*LICENCES, "README.md"):  # pyproject.toml names them, so an installation needs them
        assert not [pattern for pattern in hidden if fnmatch.fnmatch(name, pattern.removeprefix("**/"))], name


# --- versions ---


def test_the_citation_is_of_this_project():
    citation = yaml.safe_load(text("CITATION.cff"))
    assert citation["cff-version"] == "1.2.0" and citation["message"] and citation["type"] == "software"
    assert citation["title"] == project()["description"].partition(":")[0]
    assert citation["version"] == project()["version"]
    assert citation["license"] == project()["license"]
    assert citation["authors"] == [{"name": "The course's authors"}]


def test_the_changelog_knows_this_version():
    heads = re.findall(r"^## (\d+\.\d+\.\d+) - (Unreleased|\d{4}-\d\d-\d\d)$", text("CHANGELOG.md"), re.M)
    versions = [version for version, _ in heads]
    assert len(heads) == len(re.findall("^## ", text("CHANGELOG.md"), re.M)), "a head of another form"
    assert project()["version"] in versions
    assert versions == sorted(set(versions), key=lambda v: [*map(int, v.split("."))], reverse=True)
    assert "Unreleased" not in [when for _, when in heads[1:]]


@pytest.mark.parametrize("page", ["README.md", "Makefile", "Dockerfile", "docs/teaching.md",
                                  "lib/course/authoring/learners_copy.py"])  # fmt: skip
def test_commands_to_copy_name_the_pinned_pytorch(page):
    [pin] = re.findall(r"^torch==(\S+)$", text("requirements/learn.lock"), re.M)
    named = re.findall(r"\btorch==(\d[\w.]*\w)", text(page))
    assert named and set(named) == {pin}


# --- the hosted check ---

WORKFLOW = ".github/workflows/check.yml"


def workflow() -> dict:
    made = yaml.safe_load(text(WORKFLOW))
    made["on"] = made.pop(True)  # to YAML 1.1, `on` is a truth
    return made


def the_job() -> dict:
    [job] = workflow()["jobs"].values()
    return job


def test_it_runs_the_readmes_two_commands_and_no_other_test():
    block = re.search(r"^## Two commands\n.*?^```\n(.*?)^```", text("README.md"), re.M | re.S)[1]
    commands = re.findall(r"^(make \w+)", block, re.M)
    assert commands == ["make run", "make test"]
    lines = [line.strip() for step in the_job()["steps"] for line in step.get("run", "").splitlines()]
    assert [line for line in lines if "make" in line.split()] == commands
    for line in set(lines) - set(commands):
        assert not re.search(r"\b(pytest|nbval|course|ruff|tox|pip|python\d?|bash|sh)\b", line), line
    for step in the_job()["steps"]:
        if step.get("run") in commands:
            assert not {"if", "continue-on-error"} & set(step), "neither command is left out or forgiven anywhere"
    assert "continue-on-error" not in the_job()


def test_it_runs_on_both_systems_with_every_python_we_allow():
    job = the_job()
    matrix = job["strategy"]["matrix"]
    assert set(matrix) == {"system", "python"}, "nothing is taken out of the matrix"
    assert [name.partition("-")[0] for name in matrix["system"]] == ["ubuntu", "macos"]
    allowed = SpecifierSet(project()["requires-python"])
    assert matrix["python"] == [f"3.{minor}" for minor in range(50) if f"3.{minor}.0" in allowed]
    assert job["runs-on"] == "${{ matrix.system }}"
    [python] = [step["with"] for step in job["steps"] if step.get("uses", "").startswith("actions/setup-python@")]
    assert python["python-version"] == "${{ matrix.python }}"


def test_it_may_read_and_no_more_and_comes_to_an_end():
    made = workflow()
    assert made["permissions"] == {"contents": "read"} and "permissions" not in the_job()
    assert made["concurrency"]["cancel-in-progress"] is True
    assert {"push", "pull_request"} <= set(made["on"]) and "pull_request_target" not in made["on"]
    assert 0 < the_job()["timeout-minutes"] <= 360
    for step in the_job()["steps"]:
        assert re.fullmatch(r"actions/[\w-]+@v\d+", step.get("uses", "actions/none@v1"))
    assert "secrets." not in text(WORKFLOW)


def test_it_names_no_host():
    assert not re.search(r"https?:|index-url|\.(?:org|io|com)\b", text(WORKFLOW))


def test_make_takes_its_pytorch_from_the_environment():
    """As the workflow sets it; an empty value would install nothing, so it is set only where there is one."""
    assert re.search(r"^TORCH \?=", text("Makefile"), re.M)
    [step] = [step for step in the_job()["steps"] if "TORCH=" in step.get("run", "")]
    assert "runner.os == 'Linux'" in step["if"] and "vars.TORCH != ''" in step["if"]


# --- the pages ---


@pytest.mark.parametrize("page", ["README.md", "CHANGELOG.md", "SECURITY.md", "THIRD_PARTY.md", "CONTRIBUTING.md"])
def test_a_pages_links_lead_somewhere(page):
    for target, anchor in re.findall(r"\]\((?!https?:)([\w./-]*)(#[\w-]+)?\)", text(page)):
        path = ROOT / (target or page)
        assert path.exists(), target
        heads = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.M) if anchor else []
        assert not anchor or anchor[1:] in {re.sub(r"[^\w -]", "", head).lower().replace(" ", "-") for head in heads}


def test_a_hole_is_reported_in_private():
    page = text("SECURITY.md")
    assert "Report a vulnerability" in page and "docs/grading.md#threat-model" in page
    assert not re.search(r"\w@\w", page), "an address that nobody may read"
