"""What the tests of rules and dashboard share: where they lie, their queries, and the names of metrics in a query."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "deploy" / "prometheus"
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboards" / "earning.json"
RULES: list[dict[str, Any]] = YAML(typ="safe").load(FOLDER / "rules.yml")["groups"][0]["rules"]
OF_PROMETHEUS = {"up", "ALERTS"}
WORDS = {"and", "or", "unless", "bool"}


def tool(name: str) -> str:
    """A program of Debian's package prometheus; in CI it must be there, elsewhere the test is skipped without it."""
    found = shutil.which(name)
    if not found:
        assert os.environ.get("CI") != "true", f"{name} is not here; apt-get install prometheus"
        pytest.skip(f"needs {name}, which is not here: apt-get install prometheus")
    return found


def metrics_in(query: str) -> set[str]:
    """Names of the metrics in a PromQL query.

    >>> sorted(metrics_in('sum by (topic) (rate(a_total{job="b"}[5m])) / on (c) group_left (d) (e > bool 1e9)'))
    ['a_total', 'e']
    """
    query = re.sub(r'"[^"]*"', "", query)
    query = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", query)
    query = re.sub(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", "", query)
    return set(re.findall(r"(?<![\w$.])([A-Za-z_]\w*)\b(?!\s*\()", query)) - WORDS


def panels() -> Iterator[dict[str, Any]]:
    """The dashboard's panels that draw something."""
    yield from (panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row")


def drawn() -> list[str]:
    """Queries of the dashboard, with what its variables are at first."""
    dashboard = json.loads(DASHBOARD.read_text())
    queries = [target["expr"] for panel in panels() for target in panel["targets"]]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            found = re.fullmatch(r"label_values\((.*), \w+\)", variable["definition"])
            assert found, variable["definition"]
            queries.append(found[1])
    for name, value in (("network", ".*"), ("topic", ".*"), ("one", "1"), ("window", "7d")):
        queries = [query.replace(f"${name}", value) for query in queries]
    assert not [query for query in queries if "$" in query]
    return queries
