"""Make the README's pictures of the status page, light and dark, with sample numbers.

python -m tests.monitor.pictures          # needs Chromium: apt-get install chromium
"""

from pathlib import Path

from tests.fakes.clock import FakeClock
from tests.monitor.chromium import chromium
from tests.monitor.samples import served, usual

FOLDER = Path(__file__).parents[2] / "docs" / "pictures"
NOW_MS = 1_796_057_664_000
WIDTH, HEIGHT, SCALE = 1280, 1060, 0.7  # the alarms and the topics; each picture is below 150 kB


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    with served(usual(NOW_MS, "SIMULATED"), FakeClock(NOW_MS + 3_000)) as url, chromium() as browser:
        for name in ("light", "dark"):
            picture = FOLDER / f"status-{name}.png"
            browser.load(url, width=WIDTH, dark=name == "dark", picture=picture, height=HEIGHT, scale=SCALE)
            print(f"{picture}: {picture.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
