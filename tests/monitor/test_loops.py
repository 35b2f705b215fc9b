"""The monitor's loops outlast what fails in them."""

from structlog.testing import capture_logs

from core.errors import WorkerError
from monitor.loops import Loops, Step
from tests.fakes.clock import eventually


def test_an_expected_fault_is_one_line_without_a_traceback() -> None:
    def fail() -> None:
        raise WorkerError("database is locked")

    loops = Loops()
    with capture_logs() as logs:
        loops.start(Step(name="score", run=fail, every_s=60))
        eventually(lambda: bool(loops.faults and logs), what="the fault")
        loops.stop(1)
    assert loops.faults == {"score": "database is locked"}
    (said,) = logs
    assert (said["log_level"], said["reason"]) == ("warning", "database is locked")
    assert "exc_info" not in said
