"""What the documents name exists."""

import re
import tomllib
from pathlib import Path

import pytest

from cli.main import app
from core.settings import Settings

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
WIDTH = 120  # of a line of prose
ids = [str(page.relative_to(ROOT)) for page in PAGES]


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
    missing = [link for link in targets if "://" not in link and not (page.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_commands_and_scripts_exist(page: Path) -> None:
    text = page.read_text()
    verbs = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    verbs |= {group.name for group in app.registered_groups if group.name}
    assert set(re.findall(r"`(?:\.venv/bin/)?birnn ([a-z]+)", text)) <= verbs
    for script in re.findall(r"\b((?:scripts|benchmarks)/[a-z_.-]+)\b", text):
        assert (ROOT / script.rstrip(".")).exists(), script
    for module in re.findall(r"python -m ([a-z]+(?:\.[a-z_]+)*)", text):
        path = ROOT.joinpath(*module.split("."))
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_settings_are_spelt_as_they_are_read(page: Path) -> None:
    read = {name.upper() for name in Settings.model_fields}
    read |= set(re.findall(r"^#?([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    named = set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)(?:=[^`]*)?`", page.read_text()))
    sources = [*(ROOT / "core").rglob("*.py"), *(ROOT / "model").rglob("*.py"), *(ROOT / "scripts").iterdir()]
    sources.append(ROOT / "Dockerfile")
    code = "\n".join(path.read_text() for path in sources)
    assert {name for name in named - read if name not in code} == set()


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=lambda page: page.name)
def test_prose_is_wrapped(page: Path) -> None:
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    lines = [line for line in prose.splitlines() if len(line) > WIDTH and not line.lstrip().startswith("|")]
    code = [line for line in lines if line.startswith("    ")]
    links = [line for line in lines if " " not in line.strip()[:WIDTH]]
    assert [line for line in lines if line not in code and line not in links] == []


def test_the_changelog_tells_of_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert re.search(rf"^## {re.escape(version)} ", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
