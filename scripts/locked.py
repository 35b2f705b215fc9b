"""Print the lines of requirements.lock that the package needs, with the extras that are named as arguments.

    python scripts/locked.py train research

The lock file has everything that any profile installs; its "via" remarks say which package needs which other.
"""

import re
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ENTRY = re.compile(r"^([a-z0-9.-]+)==.*?(?=^\S|\Z)", re.MULTILINE | re.DOTALL)
VIA = re.compile(r"^    # (?:via|  )\s*([a-z0-9.-]+)$", re.MULTILINE)


def locked(extras: Iterable[str]) -> list[str]:
    """The entries of requirements.lock that the package with some extras needs, directly or for another package.

    Raises:
        SystemExit: an extra that pyproject.toml does not have.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {_name(requirement) for requirement in project["dependencies"]}
    for extra in extras:
        if extra not in project["optional-dependencies"]:
            sys.exit(
                f"scripts/locked.py: '{extra}' is no extra; pyproject.toml has {[*project['optional-dependencies']]}"
            )
        wanted |= {_name(requirement) for requirement in project["optional-dependencies"][extra]}
    entries = [(found[1], found[0]) for found in ENTRY.finditer((ROOT / "requirements.lock").read_text())]
    while more := {name for name, entry in entries if not wanted.isdisjoint(VIA.findall(entry))} - wanted:
        wanted |= more
    return [entry for name, entry in entries if name in wanted]


def _name(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement)[0].lower().replace("_", "-")


if __name__ == "__main__":
    sys.stdout.writelines(locked(sys.argv[1:]))
