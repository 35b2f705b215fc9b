"""What the disk refuses, in one line that names the file. Serving reads with it: it needs no libraries."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core.errors import WorkerError


@contextmanager
def disk(path: Path) -> Iterator[None]:
    """Turn an OSError into a WorkerError of one line that names the file; FileNotFoundError passes."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise WorkerError(f"{path}: {error.strerror}; check the space, owner and mode of DATA_DIR") from error
