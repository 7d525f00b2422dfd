"""Race runtimes on a board. Copied there with worker.py: standard library only, Python 3.9 or newer.

    python3 measure.py JOB.json RESULT.json

The protocol. A race has sessions; in each, every (runtime, threads) gets a fresh process, pinned to CPUs of
its own choice, loads the model once and warms up until its times have settled. Then all take turns, in rounds
of seeded random order, so that a sagging clock or a busy neighbour hits all of them alike; nobody computes
while another one is timed. The race ends when every row has its least number of runs and its least time, or
when its time is over. protocol.py has the numbers.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import random
import select
import signal
import stat
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PROTOCOL = 3  # a job of another number is refused; results of different numbers are not compared

PATIENCE = 4  # times the most seconds, for a runtime so slow that its rounds would be too few to decide

Json = dict[str, Any]


class Failure(Exception):
    """A worker that cannot go on; the text says why."""


def tell(news: Json) -> None:
    """One line of progress to whoever asked; none if nobody takes it: a full pipe must not stop a race."""
    line = (json.dumps(news) + "\n").encode()
    with contextlib.suppress(OSError):
        if len(line) <= select.PIPE_BUF and select.select([], [1], [], 0)[1]:
            os.write(1, line)


class Leash:
    """Whoever asked: the parent process, and over SSH the other end of stdin, where it sends signs of life.

    A dead link closes nothing, so silence after such a sign ends the measurement, too.
    """

    def __init__(self, silence_s: float) -> None:
        self._parent, self._silence_s = os.getppid(), silence_s
        mode = os.fstat(0).st_mode
        self.fd = 0 if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) else None
        self._heard: float | None = None

    def check(self) -> None:
        """Raises SystemExit if it is broken: nothing of us is to be left behind."""
        if os.getppid() != self._parent:
            raise SystemExit("measure.py: the process that started it has ended")
        if self.fd is not None and select.select([self.fd], [], [], 0)[0]:
            if not os.read(self.fd, 1 << 10):
                raise SystemExit("measure.py: the link to whoever asked has ended")
            self._heard = time.monotonic()
        if self._heard is not None and time.monotonic() - self._heard > self._silence_s:
            raise SystemExit(f"measure.py: no sign of life from whoever asked for {self._silence_s:.0f} s")


class Governor:
    """The clock governor `performance` while it is held; `note` says why it is not.

    The helper waits for our end of a pipe, which the kernel closes however we end.
    """

    PATIENCE_S = 30.0

    def __init__(self, command: list[str]) -> None:
        self._helper: subprocess.Popen[bytes] | None = None
        self.note: str | None = None
        try:
            self._helper = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                bufsize=0,
                start_new_session=True,  # whoever kills our group leaves it to restore
            )
            self.note = self._refusal(self._helper)
        except OSError as problem:
            self.note = f"{command[0]}: {problem.strerror}"

    def _refusal(self, helper: subprocess.Popen[bytes]) -> str | None:
        assert helper.stdout is not None
        said, end = b"", time.monotonic() + self.PATIENCE_S
        while b"held\n" not in said:
            left = max(0.0, end - time.monotonic())
            part = os.read(helper.stdout.fileno(), 1 << 10) if _readable(helper.stdout, left) else b""
            if not part:
                return " ".join(said.decode(errors="replace").split()) or "its helper says nothing"
            said += part
        return None

    def release(self) -> None:
        """Wait until the old governor is back; more than once does no harm."""
        if self._helper is not None and self._helper.stdin is not None:
            self._helper.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._helper.wait(self.PATIENCE_S)


def _readable(pipe: Any, seconds: float) -> bool:
    return bool(select.select([pipe], [], [], seconds)[0])


class Worker:
    """One process of worker.py."""

    def __init__(self, limit_s: float, leash: Leash) -> None:
        self._limit_s, self._leash = limit_s, leash
        self.started = time.perf_counter()
        command = [sys.executable, os.path.join(os.path.dirname(os.path.abspath(__file__)), "worker.py")]
        # In this process group, so that whoever kills the group kills all.
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, **request: Any) -> Json:
        """One request and its answer. Raises Failure if the worker ends, hangs or reports an error."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended; the answer below says so
            self._process.stdin.write((json.dumps(request) + "\n").encode())
            self._process.stdin.flush()
        answer: Json = json.loads(self._line(request["do"]))
        if "error" in answer:
            raise Failure(answer["error"])
        return answer

    def _line(self, what: str) -> bytes:
        assert self._process.stdout is not None
        line, end = b"", time.monotonic() + self._limit_s
        while not line.endswith(b"\n"):
            self._leash.check()
            left = end - time.monotonic()
            if left <= 0:
                raise Failure(f"no answer to '{what}' in {self._limit_s:.0f} s")
            if not _readable(self._process.stdout, min(left, 1.0)):
                continue
            part = os.read(self._process.stdout.fileno(), 1 << 16)
            if not part:
                raise Failure(f"its process ended during '{what}': {ending(self._process.wait())}")
            line += part
        return line

    def stop(self) -> None:
        """Kill it and close its pipes; more than once does no harm."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def ending(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


class Row:
    """One (runtime, threads) over all sessions, and what it measured."""

    def __init__(self, entry: Json, allowed: list[int]) -> None:
        self.entry = entry
        self.name = f"{entry['runtime']}/{entry['threads']}"
        self.cpus = choose_cpus(allowed, entry["threads"])
        self.samples: list[list[float]] = []
        self.sessions: list[Json] = []
        self.runs = 0  # of one turn; decided in the first session and kept, so that all rounds weigh the same
        self._seconds: list[float] = []  # of the timed runs of every turn
        self.worker: Worker | None = None

    def prepare(self, job: Json, leash: Leash) -> None:
        """A fresh process: load, keep the outputs if they are wanted, warm up. Raises Failure."""
        worker = self.worker = Worker(job["limit_s"], leash)
        facts = worker.ask(do="load", subject=job["subject"], entry=self.entry, cpus=self.cpus)
        facts["cold_ms"] = (time.perf_counter() - worker.started) * 1e3
        if self.entry.get("outputs") and not self.sessions:
            worker.ask(do="outputs", path=self.entry["outputs"])
        facts.update(worker.ask(do="warm", least_ms=job["warm_ms"], most_ms=job["warm_most_ms"]))
        self.sessions.append({**facts, "rounds": 0})
        ms = max(facts["ms"], 1e-6)
        self.runs = self.runs or max(1, min(job["most_runs"], int(job["slot_ms"] / ms)))
        self.settle, self.kept = job["settle"] if ms <= job["slot_ms"] else 0, job["kept_runs"]

    def turn(self) -> None:
        """Timed runs. Raises Failure."""
        answer = self.ask(do="run", settle=self.settle, runs=self.runs, kept=self.kept)
        self.samples.append(answer["ms"])
        self._seconds.append(answer["seconds"])
        self.sessions[-1]["rounds"] += 1

    def retire(self) -> None:
        """End of a session. Raises Failure."""
        self.sessions[-1].update(self.ask(do="memory"))
        self.stop()

    def ask(self, **request: Any) -> Json:
        assert self.worker is not None
        return self.worker.ask(**request)

    def stop(self) -> None:
        if self.worker is not None:
            self.worker.stop()

    @property
    def seconds(self) -> float:
        return math.fsum(self._seconds)

    @property
    def timed_runs(self) -> int:
        return len(self.samples) * self.runs

    def share(self, rounds: float, runs: float, seconds: float) -> float:
        """How much is done of so many rounds, runs and seconds; 1 or more: all of it."""
        done = (len(self.samples), self.timed_runs, self.seconds)
        return min(have / least if least else 1.0 for have, least in zip(done, (rounds, runs, seconds)))

    def result(self) -> Json:
        found = {"cpus": self.cpus, "samples": self.samples, "timed_runs": self.timed_runs}
        return {**self.entry, **found, "sessions": self.sessions}


def choose_cpus(allowed: list[int], threads: int) -> list[int] | None:
    """One CPU per thread, from the end because CPU 0 serves most interrupts; None if there are not enough."""
    return allowed[-threads:] if threads <= len(allowed) else None


class Watch:
    """What else happened on the board between two looks: other load, stolen time, clocks."""

    def __init__(self) -> None:
        self._last = self._look([])

    def lap(self, pids: list[int]) -> Json:
        """CPUs that other processes used since the last lap, CPUs that a hypervisor took, clocks in MHz."""
        before, after = self._last, self._look(pids)
        self._last = after
        seconds = max(after["time"] - before["time"], 1e-3)
        ours = sum(used - before["ours"].get(pid, 0.0) for pid, used in after["ours"].items())
        return {
            "seconds": round(seconds, 3),
            "other_cpus": round(max(0.0, after["busy"] - before["busy"] - ours) / seconds, 3),
            "stolen_cpus": round(max(0.0, after["stolen"] - before["stolen"]) / seconds, 3),
            "mhz": clocks(),
        }

    def _look(self, pids: list[int]) -> Json:
        ticks = os.sysconf("SC_CLK_TCK")
        with open("/proc/stat") as file:
            fields = [int(word) / ticks for word in file.readline().split()[1:9]]
        user, nice, system, _, _, irq, softirq, stolen = fields
        ours = {pid: used(pid, ticks) for pid in [os.getpid(), *pids]}
        busy = user + nice + system + irq + softirq
        return {"time": time.monotonic(), "busy": busy, "stolen": stolen, "ours": ours}


def used(pid: int, ticks: int) -> float:
    """CPU seconds of a process and its threads so far."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / ticks
    return 0.0


def clocks() -> list[float]:
    """The clock of every frequency domain now, in MHz; empty where the kernel does not tell."""
    with contextlib.suppress(ValueError):
        return [int(text) / 1e3 for text in sysfs("scaling_cur_freq")]
    return []


def sysfs(name: str) -> list[str]:
    """What cpufreq says of every frequency domain; empty where the kernel does not tell."""
    found = sorted(Path("/sys/devices/system/cpu/cpufreq").glob(f"policy*/{name}"))
    with contextlib.suppress(OSError):
        return [path.read_text().strip() for path in found]
    return []


class Race:
    """The rows that still run, those that failed, and the diary of the rounds."""

    def __init__(self, job: Json) -> None:
        self.job, self.allowed = job, sorted(os.sched_getaffinity(0))
        self.leash = Leash(job["silence_s"])
        self.rows = [Row(entry, self.allowed) for entry in job["rows"]]
        self.failures: list[Json] = []
        self.diary: list[Json] = []
        self._order, self._start = random.Random(job["seed"]), time.monotonic()
        self.complete = True

    def run(self) -> None:
        """All sessions; a session's share of the least runs, seconds and rounds, and of the most seconds."""
        sessions = self.job["sessions"]
        try:
            for number in range(1, sessions + 1):
                self._session(number, number / sessions)
        finally:
            for row in self.rows:
                row.stop()

    def _session(self, number: int, share: float) -> None:
        job, end = self.job, self._start + self.job["most_s"] * share
        for row in list(self.rows):
            self._tell(session=number, doing=f"{row.name} loads and warms up")
            self._attempt(row, lambda row=row: row.prepare(job, self.leash))
        rounds, runs, seconds = (job[name] * share for name in ("least_rounds", "least_runs", "least_s"))
        watch, done = Watch(), 0
        while self._share(math.ceil(rounds), runs, seconds) < 1:
            if done and self._is_over(end, done, job["fewest_rounds"] / job["sessions"]):
                self.complete = False
                break
            self._round(number, watch)
            done += 1
            self._tell_round(number)
        for row in list(self.rows):
            self._attempt(row, row.retire)

    def _share(self, rounds: float, runs: float, seconds: float) -> float:
        """How much of so many rounds, runs and seconds the slowest row has done; 1 without any row."""
        return min((row.share(rounds, runs, seconds) for row in self.rows), default=1.0)

    def _tell_round(self, number: int) -> None:
        job = self.job
        share = self._share(job["least_rounds"], job["least_runs"], job["least_s"])
        ms = {row.name: statistics.median(row.samples[-1]) for row in self.rows}
        self._tell(session=number, rounds=len(self.diary), share=min(share, 1.0), ms=ms)

    def _tell(self, **news: Any) -> None:
        failed = {f"{row['runtime']}/{row['threads']}": row["reason"][:200] for row in self.failures}
        tell({"seconds": time.monotonic() - self._start, "failed": failed, **news})

    def _is_over(self, end: float, done: int, fewest: float) -> bool:
        """Whether the time is over, and the rounds are enough to decide anything, or it is over by far."""
        late = time.monotonic() - self._start
        return time.monotonic() > end and (done >= fewest or late > PATIENCE * self.job["most_s"])

    def _round(self, session: int, watch: Watch) -> None:
        turns = self._order.sample(self.rows, len(self.rows))
        pids = [row.worker.pid for row in turns if row.worker is not None]
        watch.lap(pids)
        for row in turns:
            self._attempt(row, row.turn)
        self.diary.append({"session": session, "order": [row.name for row in turns], **watch.lap(pids)})

    def _attempt(self, row: Row, action: Any) -> None:
        """Do `action`; a row that fails leaves the race with its reason, and the others go on."""
        try:
            action()
        except Failure as problem:
            self.failures.append({**row.entry, "reason": str(problem)})
            self.rows.remove(row)
            row.stop()


def measure(job: Json) -> Json:
    """Do a job; see `trial.py` for what it holds. Rows that fail are in `failures` with their reason."""
    if job["protocol"] != PROTOCOL:
        raise SystemExit(f"measure.py speaks protocol {PROTOCOL}, the job {job['protocol']}: deploy again")
    race, governor = Race(job), Governor(job["governor"])
    try:
        governors = sysfs("scaling_governor")
        race.run()
    finally:
        governor.release()
    return {
        "governor": ", ".join(sorted(set(governors))) or None,
        "governor_note": governor.note,
        "rows": [row.result() for row in race.rows],
        "failures": race.failures,
        "allowed_cpus": race.allowed,
        "diary": race.diary,
        "complete": race.complete,
        "python": platform.python_version(),
    }


def main(arguments: list[str]) -> None:
    job, result = map(Path, arguments)
    document = measure(json.loads(job.read_text()))
    result.write_text(json.dumps(document))


if __name__ == "__main__":
    main(sys.argv[1:])
