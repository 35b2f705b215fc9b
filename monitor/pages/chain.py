"""The charts of what the chain made of our answers."""

from collections.abc import Sequence

from core.show.words import counted
from monitor.chain.results import Result
from monitor.chain.words import loss_unit
from monitor.pages.charts import Figure, lines

LEAST_DRAWN = 2  # epochs


def chain_figures(results: Sequence[Result], logarithms: bool | None) -> list[Figure]:
    """Our loss beside the others' over time, and what our value did for the network's loss.

    Args:
        results: newest first.
        logarithms: True if the losses are base-10 logarithms; None if it is not known.
    """
    settled = [one for one in reversed(results) if one.epoch.combined_loss is not None and one.epoch.block_ms]
    if len(settled) < LEAST_DRAWN:
        return []
    times = [one.epoch.block_ms or 0 for one in settled]
    losses = {
        "forecast": [_number(one.epoch.loss) for one in settled],
        "median": [_number(one.median_loss) for one in settled],
        "network": [_number(one.epoch.combined_loss) for one in settled],
        "naive": [_number(one.epoch.naive_loss) for one in settled],
    }
    helped = [_number(one.contribution) for one in settled]
    unit = "log10" if logarithms else ""
    newest = f"the newest {counted(len(settled), 'settled epoch')}, UTC"
    figures = [
        Figure(
            "Loss on the chain",
            lines(times, [(name, losses[name]) for name in reversed(losses)], unit, "losses by epoch"),
            f"{loss_unit(logarithms)}, smaller is better; a gap is an epoch that was lost. Where no worker forecasts "
            f"the others' losses, naive lies under the network; {newest}",
        )
    ]
    if any(one is not None for one in helped):
        figures.append(
            Figure(
                "Contribution",
                lines(times, [("truth", [0.0] * len(times)), ("forecast", helped)], unit, "contribution by epoch"),
                "the network's loss without our value less its loss with our value, which is our score: above 0 we "
                f"helped; a copy of the others' values lies at 0 and earns nothing; {newest}",
            )
        )
    return figures


def _number(text: str | None) -> float | None:
    return None if text is None else float(text)
