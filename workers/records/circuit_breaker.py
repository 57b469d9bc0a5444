"""The circuit breaker: fails a run whose credentials the API refuses, twenty times in a row or for every item."""

from workers.records import runs
from workers.records.tables import Run, RunStatus


def open_circuit(run_id: int, refused: int, reason: str) -> RunStatus:
    """Within a transaction that has locked the run's row: fail a running run, because the API refuses its credentials.

    Parameters:
      refused(int): How many responses in a row refused them.
      reason(str): The last refusal's.

    Returns:
      RunStatus: Always failed.
    """
    why = (
        f"the API refuses the credentials ({refused} responses in a row): {reason}; correct them, then continue the "
        f"run with `retry`"
    )
    runs.move(run_id, RunStatus.FAILED, who="sluice", door="circuit", detail=why)
    return RunStatus.FAILED


def is_refused_everywhere(run: Run) -> bool:
    """Whether the API refused the credentials of every item, and the items were too few to open the circuit."""
    return bool(0 < (run.total_count or 0) == run.failed_count == run.auth_failures_in_a_row)
