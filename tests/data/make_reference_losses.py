"""Makes ``tests/data/reference_losses.json``: what the reference implementations of the losses compute.

``python -m tests.data.make_reference_losses SDK_FOLDER GOLDEN``, where SDK_FOLDER was filled by ``pip install
--no-deps --target SDK_FOLDER allora-sdk==1.3.0`` and GOLDEN is a file of rows with czar's values. The package itself
cannot stand among the test dependencies: docs/decisions/0001.
"""

import json
import sys
from pathlib import Path

import numpy as np

from tests.core.sdk import reference_losses

FILE = Path(__file__).parent / "reference_losses.json"
SDK_VERSION = "1.3.0"
ROWS = 60  # of each loss


def main(sdk: Path, golden: Path) -> None:
    rng = np.random.default_rng(0)
    rows: list[list[str | float]] = []
    for name, function in sorted(reference_losses(sdk).items()):
        std = 10 ** rng.uniform(-5, 1, ROWS)
        size = np.resize([0.1, 1.0, 3.0, 10.0, 300.0, 1e6], ROWS)  # in standard deviations
        y, p = rng.standard_normal((2, ROWS)) * size * std
        y[:6], p[3:9] = 0.0, 0.0
        p[9:12] = y[9:12]
        rows += [[name, *row, function(*row)] for row in zip(y.tolist(), p.tolist(), std.tolist(), strict=True)]
    for row in json.loads(golden.read_text())["rows"]:
        if row["loss"] == "czar":
            rows.append(["czar", row["y_true"], row["y_pred"], row["std"], row["value"]])
    lines = ",\n".join(json.dumps(row) for row in rows)
    source = f"allora-sdk {SDK_VERSION}, loss_methods; czar: allora-forge-builder-kit, shared/loss-design.md"
    FILE.write_text(
        f'{{"source": "{source}",\n"columns": ["loss", "y", "p", "std", "value"],\n"rows": [\n{lines}\n]}}\n'
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
