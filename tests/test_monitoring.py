"""The files of Prometheus and Grafana: checked by their own tools, and held against what the processes export."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from ruamel.yaml import YAML

from core.clock import SystemClock
from exchange.server import SimulatedExchange
from inference.probe import main as probe
from model.registry.versions import Registry
from monitor.metrics import ALARMS
from tests.inference.stand import ETH_10M, publish
from tests.inference.test_main import environment, running
from tests.monitor.figures import EVERYTHING, metrics
from tests.promql import DASHBOARD, FOLDER, OF_PROMETHEUS, ROOT, RULES, drawn, metrics_in, panels, tool

OPERATING = (ROOT / "docs" / "operating.md").read_text()


def exported(text: str) -> set[str]:
    """Names of the metrics in a page of ``/metrics``, also of those that have no series now.

    >>> sorted(exported("# TYPE a_total counter\\n# TYPE b histogram\\n# TYPE b_created gauge\\n# TYPE c gauge\\n"))
    ['a_total', 'b', 'c']
    """
    names = set(re.findall(r"^# TYPE (\w+) ", text, re.MULTILINE))
    return {name for name in names if not name.endswith("_created")}


def with_endings(text: str) -> set[str]:
    """The same names as a query writes them: a histogram's have endings."""
    kinds = dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE))
    return {
        f"{name}{ending}"
        for name in exported(text)
        for ending in (("_bucket", "_sum", "_count") if kinds[name] == "histogram" else ("",))
    }


@pytest.fixture(scope="module")
def of_inference(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The metrics of a running ``python -m inference`` that has a network and has answered."""
    folder = tmp_path_factory.mktemp("inference")
    with SimulatedExchange() as exchange:
        registry = Registry(folder / "data")
        registry.promote([ETH_10M], publish(registry, 0.5, SystemClock().now_ms()), 1)
        with running(environment(folder, exchange.url), folder / "log") as process:
            assert probe(["readyz", "--wait", "60", "--url", process.url]) == 0
            assert requests.get(f"{process.url}/inference/ETH?topic=1&height=5", timeout=5).status_code == 200
            yield requests.get(f"{process.url}/metrics", timeout=5).text


@pytest.fixture(scope="module")
def of_monitor() -> str:
    return metrics(EVERYTHING).text().decode()


@pytest.fixture(scope="module")
def of_node(payloads: Path) -> str:
    return (payloads / "node" / "metrics.txt").read_text()


def promtool(*arguments: str | Path) -> None:
    done = subprocess.run([tool("promtool"), *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# --- Prometheus ------------------------------------------------------------------------------------------------------


def test_the_configuration_is_valid() -> None:
    promtool("check", "config", FOLDER / "prometheus.yml")


def test_the_rules_are_valid() -> None:
    promtool("check", "rules", FOLDER / "rules.yml")


def test_each_rule_fires_for_what_is_broken_and_not_for_what_is_well() -> None:
    promtool("test", "rules", FOLDER / "rules_test.yml")


def test_each_rule_has_such_a_test() -> None:
    """Expected in a query, with no alert expected in the first query: a rule that is left out would be silent."""
    fires, silent = set(), set()
    for test in YAML(typ="safe").load(FOLDER / "rules_test.yml")["tests"]:
        seen = [
            {label for sample in query["exp_samples"] for label in re.findall(r'alertname="(\w+)"', sample["labels"])}
            for query in test["promql_expr_test"]
        ]
        fires |= set().union(*seen)
        silent |= set().union(*seen[1:]) if not seen[0] else set()
    assert fires == silent == {rule["alert"] for rule in RULES}


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_each_rule_says_what_happened_and_what_to_do(rule: dict[str, dict[str, str]]) -> None:
    assert rule["annotations"].keys() == {"summary", "description", "remedy"}
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}


def test_each_alarm_has_a_rule() -> None:
    assert {rule["labels"]["alarm"] for rule in RULES if "alarm" in rule["labels"]} == set(ALARMS)


def test_only_our_processes_and_the_node_are_read() -> None:
    config = YAML(typ="safe").load(FOLDER / "prometheus.yml")
    targets = [target for job in config["scrape_configs"] for at in job["static_configs"] for target in at["targets"]]
    assert targets == ["inference:8000", "monitor:8080", "node:2112"]
    assert YAML(typ="safe").load(FOLDER / "nodes" / "second.yml") == []
    assert YAML(typ="safe").load(FOLDER / "second-node.yml") == [{"targets": ["node-second:2112"]}]
    assert config.keys() == {"global", "rule_files", "scrape_configs"}


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", [*(rule["expr"] for rule in RULES), *drawn()])
def test_every_metric_of_a_query_is_exported(query: str, of_inference: str, of_monitor: str, of_node: str) -> None:
    known = with_endings(of_inference) | with_endings(of_monitor) | with_endings(of_node) | OF_PROMETHEUS
    assert metrics_in(query) - known == set()
    assert metrics_in(query)


def test_operating_names_every_metric_and_no_other(of_inference: str, of_monitor: str, of_node: str) -> None:
    section = re.search(r"^### Every metric$(.*?)^### ", OPERATING, re.MULTILINE | re.DOTALL)
    assert section
    inference, monitor, rest = re.split(r"^Of (?:the monitor:|both,)", section[1], flags=re.MULTILINE)
    assert set(re.findall(r"`(birnn_\w+)`", inference)) == {
        name for name in exported(of_inference) if name.startswith("birnn_")
    }
    assert set(re.findall(r"`(birnn_\w+)`", monitor)) == {
        name for name in exported(of_monitor) if name.startswith("birnn_")
    }
    assert set(re.findall(r"`(allora_\w+)`", rest)) == exported(of_node)
    of_both = {name for text in (of_inference, of_monitor) for name in exported(text) if not name.startswith("birnn_")}
    assert set(re.findall(r"`(process_\w+)`", rest)) == of_both


@pytest.mark.parametrize("page", ["of_inference", "of_monitor"])
def test_labels_are_those_that_operating_names(page: str, request: pytest.FixtureRequest) -> None:
    text: str = request.getfixturevalue(page)
    for names, labels in re.findall(r"^\| (`birnn_[^|]*`) \| ([^|]*)\|", OPERATING, re.MULTILINE):
        for name in re.findall(r"`(\w+)`", names):
            for found in re.findall(rf"^{name}(?:_count)?\{{(.*)\}} ", text, re.MULTILINE):
                assert set(re.findall(r'(\w+)="', found)) == set(re.findall(r"\w+", labels)), name


# --- Grafana ---------------------------------------------------------------------------------------------------------


def test_the_dashboard_reads_the_provisioned_source() -> None:
    folder = ROOT / "deploy" / "grafana" / "provisioning"
    source = YAML(typ="safe").load(folder / "datasources" / "prometheus.yml")["datasources"][0]
    assert source["url"] == "http://prometheus:9090"
    used = {target["datasource"]["uid"] for panel in panels() for target in panel["targets"]}
    assert used == {source["uid"]}
    services = YAML(typ="safe").load(ROOT / "docker-compose.yml")["services"]
    mounted = {Path(m["source"]): m["target"] for m in services["grafana"]["volumes"] if not isinstance(m, str)}
    provider = YAML(typ="safe").load(folder / "dashboards" / "birnn.yml")["providers"][0]
    assert mounted[DASHBOARD.parent.relative_to(ROOT)] == provider["options"]["path"]
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{provider['options']['path']}/{DASHBOARD.name}"


def test_the_dashboards_panels_are_whole_and_do_not_overlap() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not taken & cells, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
