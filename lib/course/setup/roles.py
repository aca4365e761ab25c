"""Who installs what: the roles of pyproject.toml, their pins in requirements/, and the one command that adds one.

learn is everybody's: lessons, library, commands. teach, site and develop add to it. Standard library only, because this
is asked when packages are missing.
"""

import importlib.metadata
import re
import shutil
import sys
import tomllib
from pathlib import Path

from lib.sources.places import ROOT

NEEDS = {"grade": ("grading", "teach"), "site": ("the website", "site")}  # commands for which learn is not enough


def requirements() -> dict[str, list[str]]:
    """The names in pyproject.toml by role: what learn needs, and what each other role adds of its own."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {"learn": project["dependencies"]} | project.get("optional-dependencies", {})
    return {role: [name for name in map(_name, lines) if name != project["name"]] for role, lines in wanted.items()}


def pins(role: str) -> dict[str, str]:
    """The exact versions of a role's own requirements on this system, from its lock."""
    locked = {}
    for line in (ROOT / "requirements" / f"{role}.lock").read_text(encoding="utf-8").splitlines():
        found = re.match(r"([\w.-]+)==([^\s;]+)\s*(?:;(.*))?", line)
        if found and _meant(found[3]):
            locked[_name(found[1])] = found[2]
    return {name: locked[name] for name in requirements()[role] if name in locked}


def version(name: str) -> str:
    """The installed version, or "" if there is none."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def here() -> list[str]:
    """The roles of this environment: learn, those that make has set up, and those whose packages are all there."""

    def stands(role: str) -> bool:
        return (Path(sys.prefix) / f".ready-{role}").exists() or all(map(version, pins(role)))

    return [role for role in requirements() if role == "learn" or stands(role)]


def adding(role: str) -> str:
    """The one command that adds a role's packages to this environment."""
    if Path(sys.prefix) == ROOT / ".venv" and shutil.which("make"):
        return "make setup" + (f" ROLE={role}" if role != "learn" else "")
    return f'pip install -e "{ROOT}' + (f'[{role}]"' if role != "learn" else '"')


def lacking(command: str, package: str) -> str:
    """What to tell somebody who called a command whose packages are not installed."""
    what, role = NEEDS.get(command, (f"`course {command}`" if command else "the course", "learn"))
    return f"{what} needs packages that are not installed ({package}); add them with: {adding(role)}"


def _name(requirement: str) -> str:
    return re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-")


def _meant(marker: str | None) -> bool:
    if not marker:
        return True
    try:
        from packaging.markers import Marker
    except ImportError:
        return False
    return Marker(marker).evaluate()
