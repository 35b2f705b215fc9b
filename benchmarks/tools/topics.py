"""The topics that benchmarks of skill ask: three tokens, every target and horizon of the network."""

from collections.abc import Collection

from core.topic import Target, Topic

TOKENS, UNSEEN = ("BTC", "ETH", "SOL"), "ARBUSDT"  # UNSEEN: a symbol that no training may see
# Loss by horizon in minutes; a topic with mse asks for a price, one with czar for a log-return.
RETURNS = {5: "mse", 10: "mse", 15: "czar", 20: "mse", 60: "czar", 480: "czar", 1440: "czar", 10080: "czar"}


def topics(volatility_min: Collection[int]) -> tuple[Topic, ...]:
    """Return a volatility topic per token and given horizon, and a topic per token and horizon of RETURNS."""
    asked = [(token, Target.VOLATILITY, minutes, "mse") for token in TOKENS for minutes in volatility_min]
    asked += [
        (token, Target.PRICE if loss == "mse" else Target.LOG_RETURN, minutes, loss)
        for token in TOKENS
        for minutes, loss in RETURNS.items()
    ]
    return tuple(
        Topic(topic_id=number, token=token, symbol=f"{token}USDT", target=target, horizon_min=minutes, loss=loss)
        for number, (token, target, minutes, loss) in enumerate(asked, 1)
    )
