"""``birnn chain probe`` against the replay of a recorded chain."""

import json

import pytest
from typer.testing import CliRunner

from chain.versions import PATHS
from cli.main import app
from cli.probe import ANSWERS, FAILED, MISREAD_AS, NOT_SPOKEN, NOT_THERE, REFUSED
from tests.fakes.chain_replay import HTML, OURS, ChainReplay, recorded
from tests.fakes.venue_server import Answer

LINES = recorded()
HEIGHT = 436


def probe(*arguments: str, **environment: str) -> tuple[int, str, str]:
    ran = CliRunner().invoke(app, ["chain", "probe", *arguments], env={"COLUMNS": "200", **environment})
    return ran.exit_code, ran.stdout, ran.stderr


def answers_of(chain: ChainReplay, *arguments: str) -> dict[str, str]:
    code, out, _ = probe("--url", chain.url, "--topic", "3", "--address", OURS, "--json", *arguments)
    assert code == 0
    (host,) = json.loads(out)["hosts"]
    assert (host["chain_id"], host["api"], host["topic"]) == ("localnet", chain.api, 3)
    assert all(read["ms"] >= 0 for read in host["reads"])
    return {read["read"]: read["answer"] for read in host["reads"]}


@pytest.mark.parametrize("api", ["v5", "v10"])
def test_each_path_by_what_the_host_answers(api: str) -> None:
    with ChainReplay(LINES, height=HEIGHT).running() as chain:
        chain.api = api
        answers = answers_of(chain)
    assert list(answers) == list(PATHS)
    lacking = {name for name, answer in answers.items() if answer == NOT_SPOKEN}
    assert lacking >= {"upgrade", "gas_price", "open_windows"}
    assert ({"window", "can_submit"} <= lacking) == (api == "v5")
    assert {answers[name] for name in ("topic", "inferences", "losses", "scores", "latest_inference")} == {ANSWERS}


def test_a_host_that_fails_in_parts() -> None:
    with ChainReplay(LINES, height=HEIGHT).running() as chain:
        chain.bodies["topics/3"] = Answer('{"topic":{"id":"3"}}')
        chain.bodies["params"] = Answer('{"code":2,"message":"pruned\\u001b[31m","details":[]}', 500)
        chain.bodies["inferences/3/403"] = Answer('{"code":5,"message":"none"}', 404)
        chain.faults["/emissions/v5/active_forecasters/3"] = HTML
        answers = answers_of(chain)
        _, out, _ = probe("--url", chain.url, "--topic", "3")
    assert answers["topic"] == MISREAD_AS
    assert answers["params"] == REFUSED
    assert answers["inferences"] == NOT_THERE
    assert answers["active_forecasters"] == FAILED
    assert "\x1b" not in out
    assert "/emissions/v5/topics/3 has another form than this worker reads" in out


def test_a_table_of_the_newest_active_topic() -> None:
    with ChainReplay(LINES, height=HEIGHT).running() as chain:
        code, out, _ = probe(LCD_URLS=chain.url, WORKER_ADDRESS=OURS)
    assert code == 0
    assert "localnet, emissions API v5, release 0.6.0, height 436" in out
    assert f"/emissions/v5/inferer_score_ema/3/{OURS}" in out


def test_hosts_that_cannot_be_used() -> None:
    code, out, _ = probe("--url", "http://127.0.0.1:9")
    assert code == 1
    assert "127.0.0.1:9 cannot be used: connection failed" in out
    code, _, errors = probe("--url", "127.0.0.1:9")
    assert code != 0
    assert "LCD_URLS" in errors
    code, _, errors = probe(LCD_URLS="")
    assert code != 0
    assert "set LCD_URLS, or give --url" in errors
