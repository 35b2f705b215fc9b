"""``birnn alarm --test``: one notification to each entry of ALARM_URLS."""

import socket
from concurrent.futures import ThreadPoolExecutor

from cli.screen import say
from core.settings import Settings
from monitor.send import Delivery, Kind, Message, addresses_of


def try_addresses(settings: Settings) -> bool:
    """Send, and tell of each entry what came of it; True if every entry accepted the notification."""
    addresses = addresses_of(settings.alarm_urls)
    if not addresses:
        say("ALARM_URLS is not set, so no alarm is sent: write the URL of a service into .env, see .env.example")
        return False
    message = Message(
        title=f"BiRNN worker on {socket.gethostname()}: test",
        body="This is a test of ALARM_URLS. Nothing is wrong.",
        kind=Kind.TEST,
    )
    with ThreadPoolExecutor(len(addresses)) as pool:
        outcomes = list(pool.map(lambda address: Delivery(address).send(message), addresses))
    for address, why_not in zip(addresses, outcomes, strict=True):
        say(f"{address.name}: {f'not sent: {why_not}' if why_not else 'accepted; look whether it arrived'}")
    return not any(outcomes)
