"""A real monitor beside a chain that is unwell: what it reads there, it tells."""

import json
import subprocess
import sys
from pathlib import Path

from bech32 import bech32_encode

from core.clock import SystemClock
from core.settings import load_settings
from ledger.database import Database
from tests.fakes.chain_replay import ChainReplay, recorded
from tests.fakes.clock import eventually
from tests.fakes.venue_server import Answer
from tests.monitor.chain.follow import answer, submitted
from tests.monitor.receiver import receiving
from tests.monitor.test_main import monitoring, surroundings
from tests.node.config_files import entry, written

NETWORK = "allora-testnet-9"  # whose topics the catalogue does not know, so that any horizon may be set
PLAN = {"plan": {"name": "v0.18.0", "time": "0001-01-01T00:00:00Z", "height": "900", "info": ""}}
OTHER = bech32_encode("allo", [0] * 32)  # a wallet that no node here uses
NOTHING = Answer('{"balance":{"denom":"uallo","amount":"0"}}')


def test_what_breaks_on_the_chain_is_told(tmp_path: Path) -> None:
    """Another question than the config's, an upgrade that is scheduled, and answers that do not arrive."""
    lines = recorded()
    chain = ChainReplay(lines, chain_id=NETWORK, speed=20)
    chain.faults["/cosmos/upgrade/v1beta1/current_plan"] = Answer(json.dumps(PLAN))
    chain.faults[f"/cosmos/bank/v1beta1/balances/{OTHER}/by_denom?denom=uallo"] = NOTHING
    written(tmp_path, entry(1, Target="price", Horizon="10m"), chainId=NETWORK)
    with chain.running(), receiving() as receiver:
        given = surroundings(
            tmp_path,
            "http://127.0.0.1:9",
            MARKET="binance",
            LCD_URLS=chain.url,
            RPC_URLS=chain.url,
            WORKER_ADDRESS=OTHER,
            ALARM_URLS=receiver.alarm_url,
            ALARM_INFERENCE="off",
            ALARM_ARRIVAL="2",
        )
        subprocess.run([sys.executable, "-m", "ledger"], env=given, check=True, timeout=60)
        ledger = Database(load_settings(data_dir=tmp_path / "data", database_url="").ledger_url, SystemClock())
        ledger.write(
            [answer(1, nonce, value, NETWORK) for (topic_id, nonce), value in submitted(lines).items() if topic_id == 1]
        )
        with monitoring(given, tmp_path / "log"):
            told = ("contract", "upgrade", "arrival")
            eventually(lambda: all(receiver.told(f"ALARM {name}: ") == 1 for name in told), 60, "the alarms")
    assert f"topic {NETWORK}/1: the chain asks for the truth about 1m after the base" in receiver.text
    assert f"{NETWORK} is upgraded to v0.18.0 at height 900" in receiver.text
    assert "no answer of ours arrived on chain (the newest: answered and not submitted)" in receiver.text
