"""The supervisor, its children and their signals: real processes, cheap ones where a whole fleet is not needed."""

import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.machine import ROOT, free_port, wait_until
from workers.processes.worker_supervisor import WorkerSlot, drain, look_at

SLEEPS = ("sleep", "60")
#: Says that it runs, all the time.
BEATS = (sys.executable, "-c", "import os, time\nwhile True: os.write(0, b'.'); time.sleep(0.02)")


@pytest.fixture
def child_of():
    """Make children of a command; none is left behind."""
    children = []

    def make(*command):
        children.append(WorkerSlot(len(children) + 1, command))
        return children[-1]

    yield make
    for child in children:
        if child.process:
            child.process.kill()
            child.process.wait()


def dies(child, number=None):
    """Wait until the child's process has ended, by a signal where one is given."""
    if number is not None:
        child.process.send_signal(number)
    wait_until(lambda: child.process.poll() is not None, what="its end")


# --- replaced, with a backoff and a reason


def test_a_child_that_cannot_start_is_tried_less_and_less_often(child_of, caplog):
    # Given a child that ends at once, as after a deploy with an error in it
    child, now = child_of("sh", "-c", "exit 2"), 100.0
    child.look(now)

    for wait in (0.2, 1, 2, 5, 10, 10):
        # When it has ended
        dies(child)
        child.look(now)

        # Then the next one comes after the wait that the log names, and not before
        assert f"ended with status 2 after 0.0 s; it is started again in {wait:.1f} s" in caplog.messages[-1]
        child.look(now + wait - 0.01)
        assert child.process is None
        now += wait
        child.look(now)
        assert child.process is not None


def test_a_child_that_dies_after_a_steady_life_is_replaced_at_once(child_of, caplog):
    # Given a child that could not start some times
    child, now = child_of(*SLEEPS), 100.0
    for _ in range(3):
        child.look(now)
        dies(child, signal.SIGKILL)
        child.look(now)
        now += 10
    assert "it is started again in 2.0 s" in caplog.messages[-1]

    # When it lives for 40 s before it dies, again and again
    for _ in range(3):
        child.look(now)
        dies(child, signal.SIGKILL)
        now += 40
        child.look(now)

        # Then the next one comes soon
        assert "after 40.0 s; it is started again in 0.2 s" in caplog.messages[-1]
        now += 0.2


@pytest.mark.parametrize(
    ("number", "how"),
    [
        (signal.SIGKILL, "was killed by SIGKILL from outside (out of memory? see the kernel's log)"),
        (signal.SIGSEGV, "was killed by SIGSEGV"),
        (signal.SIGRTMIN + 3, f"was killed by signal {signal.SIGRTMIN + 3}"),
    ],
)
def test_the_log_says_who_died_of_what_and_when_the_next_one_comes(child_of, caplog, number, how):
    child = child_of(*SLEEPS)
    child.look(100.0)
    process_id = child.process.pid

    dies(child, number)
    child.look(112.0)

    assert caplog.messages == [f"worker process 1 (pid {process_id}) {how} after 12.0 s; it is started again in 0.2 s"]


def test_a_machine_that_cannot_start_a_process_does_not_end_the_supervisor(child_of, caplog):
    # Given a program that is not there, as in the middle of a deploy
    child = child_of("/nowhere/python")

    # When it is looked at, then that is said, and tried again later
    for now, wait in ((100.0, 0.2), (100.2, 1.0), (101.2, 2.0)):
        child.look(now)
        assert caplog.messages[-1].startswith("worker process 1 could not be started ([Errno 2]")
        assert caplog.messages[-1].endswith(f"it is tried again in {wait:.1f} s")
        child.look(now + wait - 0.01)
    assert len(caplog.messages) == 3


# --- a child that hangs


def silent_for(child, start, seconds):
    """Look at a child each second, from `start` on; return the time."""
    for second in range(1, seconds + 1):
        child.look(start + second)
    return start + seconds


def beating(child, now):
    """Start a child, and wait for its first heartbeat."""
    child.look(now)
    wait_until(lambda: child.look(now) or child._silent_seconds == 0, what="its first word")


def stopped(child):
    child.process.send_signal(signal.SIGSTOP)
    wait_until(lambda: " T " in Path(f"/proc/{child.process.pid}/stat").read_text(), what="its stop")


@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
def test_a_child_that_hangs_is_killed_and_replaced_and_the_log_says_why(child_of, caplog):
    # Given a child that was stopped, for good
    child = child_of(*BEATS)
    beating(child, 100.0)
    stopped(child)
    process = child.process

    # When it has said nothing for 60 s, and not before
    child.look(100.0)
    now = silent_for(child, 100.0, 60)
    assert process.poll() is None
    silent_for(child, now, 1)

    # Then it is killed, which is no riddle, and another one comes
    dies(child)
    assert caplog.messages == [
        f"worker process 1 (pid {process.pid}) sent no heartbeat for 60 s: it hangs, and is killed"
    ]
    child.look(now + 2)
    assert caplog.messages[-1].endswith("was killed by SIGKILL after 1 min 2 s; it is started again in 0.2 s")
    child.look(now + 3)
    assert child.process.poll() is None


@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
def test_a_child_that_goes_on_in_time_is_left_alone(child_of, caplog):
    # Given a child that is stopped for 5 s, and for 55
    child = child_of(*BEATS)
    beating(child, 100.0)
    now = 100.0
    for seconds in (5, 55):
        stopped(child)
        now = silent_for(child, now, seconds)

        # When it continues, then the silence is forgotten
        child.process.send_signal(signal.SIGCONT)
        wait_until(lambda at=now: child.look(at) or child._silent_seconds == 0, what="a word")
    assert not caplog.messages


def test_nobody_is_killed_for_the_time_in_which_the_supervisor_or_the_machine_stood_still(child_of, caplog):
    # Given children with a heartbeat that are stopped together with the machine
    children = [child_of(*BEATS) for _ in range(2)]
    for child in children:
        beating(child, 100.0)
        stopped(child)
        child.look(100.0)

    # When all continue an hour later, and the supervisor is the first to look
    for child in children:
        child.look(3700.0)

    # Then none is killed
    assert not caplog.messages
    assert all(child.process.poll() is None for child in children)


def test_a_child_may_take_minutes_to_start_but_not_for_ever(child_of, caplog):
    # Given a child that has not said a word yet, for its sources are still imported
    child = child_of(*SLEEPS)
    child.look(100.0)

    # When four minutes have passed, it is left alone; after five it hangs
    now = silent_for(child, 100.0, 299)
    assert not caplog.messages
    silent_for(child, now, 2)
    dies(child)
    assert "it hangs" in caplog.messages[0]


def test_a_child_that_cannot_be_looked_at_is_logged_and_keeps_no_other_from_being_looked_at(child_of, caplog):
    # Given a child whose pipe is no more
    child = child_of(*SLEEPS)
    look_at(child)
    os.close(child._pipe)

    # When it is looked at
    look_at(child)

    # Then that is an error in the log, and no more
    assert [record.exc_info[0] for record in caplog.records] == [OSError]
    child._pipe = os.open(os.devnull, os.O_RDONLY)


#: A worker process's word into three pipes: one with a reader, one that is full, one without a reader.
SPEAKS = """
import os, time
from workers import clock
from workers.processes import signals
from workers.processes.worker import beat

signals.on_stop()
for kind in ("heard", "full", "alone"):
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    if kind == "full":
        os.write(theirs, b"x" * 1_000_000)
    if kind == "alone":
        os.close(ours)
    os.dup2(theirs, 0)
    beat()
    print(kind, os.read(ours, 1).decode() if kind == "heard" else "", clock.stop_requested.wait(0.3))
time.sleep(2.1)
beat()  # in its drain
time.sleep(0.2)
print("drained")
"""


def test_a_worker_process_speaks_to_its_supervisor_and_ends_when_nobody_listens():
    # When a worker process says that it runs
    done = subprocess.run(
        [sys.executable, "-c", SPEAKS], cwd=ROOT, capture_output=True, text=True, timeout=20, check=True
    )

    # Then it is heard, is not held up by a supervisor that does not look, and goes where there is none
    assert done.stdout.splitlines() == ["heard . False", "full  False", "alone  True", "drained"]


#: Starts a child that says nothing and hears everything, and dies.
DIES = """
import os, signal
from workers.processes.worker_supervisor import WorkerSlot

child = WorkerSlot(1, ("sleep", "60"))
child.look(0.0)
print(child.process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_a_child_ends_with_its_supervisor():
    done = subprocess.run(
        [sys.executable, "-c", DIES],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL

    def gone():
        try:
            return "sleep" not in Path(f"/proc/{int(done.stdout)}/cmdline").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return True

    wait_until(gone, 5, "its end")


def test_a_real_worker_process_sends_heartbeats_and_drains(environment, redis_server):
    # Given a worker process
    environment.setenv("SLUICE_REDIS_URL", redis_server)
    child = WorkerSlot(1)
    child.look(100.0)
    try:
        # Then its heartbeat arrives, and it ends in order
        wait_until(lambda: child.look(100.0) or child._silent_seconds == 0, 20, "its first word")
        drain([child], 10.0)
        assert child.process.returncode == 0
    finally:
        child.process.kill()


# --- being asked to stop


def test_children_that_are_just_being_started_are_drained_too(child_of):
    # Given children whose program has not installed its handlers yet
    children = [child_of(sys.executable, "-c", "import time; time.sleep(60)") for _ in range(3)]
    for child in children:
        child.look(time.monotonic())

    # When they are drained at once
    began = time.monotonic()
    drain(children, 10.0)

    # Then they have ended
    assert [child.process.returncode for child in children] == [-signal.SIGTERM] * 3
    assert time.monotonic() - began < 5


def test_children_that_do_not_end_are_killed_together_at_the_end_of_the_drain(child_of, caplog):
    # Given children that do not hear
    children = [child_of("sh", "-c", "trap '' TERM; echo >&0; while :; do sleep 0.1; done") for _ in range(3)]
    for child in children:
        child.look(time.monotonic())
        assert select.select([child._pipe], [], [], 10)[0], "its trap is not set"

    # When they are drained
    began = time.monotonic()
    drain(children, 1.0)

    # Then that second is for all of them together
    assert [child.process.returncode for child in children] == [-signal.SIGKILL] * 3
    assert 1.0 <= time.monotonic() - began < 2.8
    assert sum("did not end in 1 s" in message for message in caplog.messages) == 3


#: Does not look at the request, as a process that hangs.
HEARS = """
import time
from workers import clock
from workers.processes import signals
signals.on_stop(within={within}, at_once=lambda: print("at once", flush=True))
print("ready", flush=True)
while True:
    time.sleep(0.05)
    print(clock.stop_requested.is_set(), flush=True)
"""


class Listener:
    """A process that hears signals, and says whether it was asked to stop."""

    def __init__(self, within=None, ignores=()):
        def ignore():
            for number in ignores:
                signal.signal(number, signal.SIG_IGN)

        self.process = subprocess.Popen(
            [sys.executable, "-c", HEARS.format(within=within)],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, preexec_fn=ignore,
        )  # fmt: skip
        self.hears("ready")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def hears(self, word):
        """Read on until it says a word, or nothing more."""
        return any(line.strip() == word for line in self.process.stdout)


def test_two_signals_within_two_seconds_are_one_request_and_a_later_one_ends_at_once():
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    with Listener() as first, Listener() as second, Listener() as third:
        listeners = (first, second, third)

        # When each is asked to stop, and asked again at once
        began = time.monotonic()
        for _ in range(2):
            for listener, number in zip(listeners, numbers, strict=True):
                listener.process.send_signal(number)
            time.sleep(0.2)

        # Then it has heard, and continues its drain
        assert all(listener.hears("True") for listener in listeners)
        time.sleep(began + 1.5 - time.monotonic())
        for listener in listeners:
            listener.process.send_signal(signal.SIGTERM)
        time.sleep(began + 2.1 - time.monotonic())
        assert [listener.process.poll() for listener in listeners] == [None] * 3

        # When each is asked again, two seconds after the first time
        for listener, number in zip(listeners, numbers, strict=True):
            listener.process.send_signal(number)

        # Then it ends at once
        assert [listener.process.wait(2) for listener in listeners] == [143, 130, 129]
        assert all(listener.hears("at once") for listener in listeners)


#: A signal comes while the interpreter ends, after it has restored the default handlers.
SIGNALLED_AT_ITS_END = """
import os, signal
from workers.processes import signals

class Last:
    def __del__(self, kill=os.kill, process=os.getpid(), number=signal.SIGTERM):
        kill(process, number)

last = Last()
signals.on_stop()
"""


def test_a_signal_while_the_interpreter_ends_does_not_change_the_exit_code():
    done = subprocess.run([sys.executable, "-c", SIGNALLED_AT_ITS_END], cwd=ROOT, timeout=20, check=False)

    assert done.returncode == 0


#: The second of two signals goes to a thread that is not the main one, which waits: as the kernel may choose.
HEARS_LATE = """
import signal, threading, time
from workers import clock
from workers.processes import signals

signals.on_stop()
other = threading.Thread(target=time.sleep, args=(60,), daemon=True)
other.start()

def ask():
    signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM)
    time.sleep(0.2)
    signal.pthread_kill(other.ident, signal.SIGTERM)

threading.Timer(0.1, ask).start()
other.join(2.6)
print("drained", clock.stop_requested.is_set())
"""


def test_two_signals_are_one_request_when_the_main_thread_is_late_to_see_the_second():
    line = [sys.executable, "-c", HEARS_LATE]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stdout) == (0, "drained True\n")


def test_a_process_that_hangs_in_its_drain_ends_in_time():
    with Listener(within=0.5) as listener:
        began = time.monotonic()
        listener.process.send_signal(signal.SIGTERM)
        assert listener.process.wait(5) == 143
        assert time.monotonic() - began >= 0.5
        assert listener.hears("at once")


def test_nohup_is_respected():
    with Listener(ignores=[signal.SIGHUP]) as listener:
        listener.process.send_signal(signal.SIGHUP)
        time.sleep(0.2)
        listener.process.send_signal(signal.SIGUSR1)  # the last thing it hears
        assert listener.process.wait(5) == -signal.SIGUSR1
        assert not listener.hears("True")


@pytest.fixture
def supervisor_of(tmp_path, redis_server):
    """Start `python -m workers worker` with settings of a test's own, and wait for a line of its log."""
    started = []

    def start(line="", **environment):
        known = {"SLUICE_REDIS_URL": redis_server, "SLUICE_DATA_DIR": str(tmp_path), "SLUICE_LOG_LEVEL": "INFO"}
        process = subprocess.Popen(
            [sys.executable, "-m", "workers", "worker"],
            cwd=ROOT, env={**os.environ, **known, **environment}, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        assert not line or any(line in said for said in process.stderr), f"it ended without saying {line!r}"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stderr.close()


def test_a_supervisor_that_still_waits_ends_when_it_is_asked_to(supervisor_of):
    # Given one that waits for Redis, and one that waits for migrations
    no_redis = supervisor_of("waiting for Redis", SLUICE_REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")
    no_tables = supervisor_of("waiting: the database has no, or older, Sluice tables")

    # When they are asked to end
    for process in (no_redis, no_tables):
        process.terminate()

    # Then they do
    assert [process.wait(5) for process in (no_redis, no_tables)] == [0, 0]


def test_a_supervisor_ends_in_time_though_the_database_does_not_answer(supervisor_of):
    # Given one that waits for a database whose machine takes connections, and says nothing
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"postgresql://sluice@127.0.0.1:{mute.getsockname()[1]}/sluice"
        process = supervisor_of(SLUICE_DATABASE_URL=url, SLUICE_DRAIN_SECONDS="1")
        connection, _ = mute.accept()

        # When it is asked to end, then it does not wait for the end of the connection's patience, 10 s
        with connection:
            began = time.monotonic()
            process.terminate()
            assert process.wait(8) == 143
            assert time.monotonic() - began < 5
