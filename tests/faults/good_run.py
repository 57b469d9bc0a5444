"""The facts of a fault run without a breach; a test changes one of them and expects the checker to see it."""

from tests.faults.facts import Facts, Shape, Struck
from tests.faults.schedule import Fault, Kind

KILLED = Struck(Fault(0.5, Kind.CHILD_KILLED), 3.0, 500)
FLUSHED = Struck(Fault(0.6, Kind.REDIS_FLUSHED), 4.0, 600)
SHAPE = Shape(items=1000, per_page=20, smallest_limit=48, lanes=16, processes=2, threads=8)
GOOD = Facts(
    seed=1,
    database="sqlite",
    shape=SHAPE,
    struck=(KILLED, FLUSHED),
    missed=(),
    seconds=60.0,
    status="completed",
    why="",
    total=1000,
    succeeded=1000,
    failed=0,
    skipped=0,
    hits=0,
    most_percent=100.0,
    items={"completed": 1000},
    item_ids=1000,
    rows=1000,
    row_ids=1000,
    filled=1000,
    accepted=1075,
    rejected=0,
    fullest=1.0,
    asked=(1000, 1024),
    listed=(50, 51),
    attempts_failed=0,
    pages_failed=0,
    died=(),
    left="",
    folder="",
)
