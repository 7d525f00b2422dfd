"""The governor's helper: on files that look like /sys, and with a real sudo on the vm board."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from pilite.errors import BoardError
from pilite.lab import boards, governor, measure, trial
from pilite.lab.boards import Board
from pilite.lab.rivals import PILITE
from tests.lab.conftest import Bed
from tests.lab.stub import ARTIFACTS, Stub
from tests.lab.test_bench import QUICK, deployed
from tests.lab.test_measure import until

ENDLESS = replace(QUICK, least_s=1e9, most_s=1e9, total_s=20)
DEFAULTS = {"policy0": "performance", "policy4": "powersave"}  # of the kernel, after a reboot
OLD = {"policy0": "ondemand", "policy4": "schedutil"}


@dataclass(frozen=True)
class Fake:
    """Clocks made of files, and the helper that takes them for real ones."""

    folder: Path

    @property
    def hold(self) -> list[str]:
        return ["sh", str(self.folder / "governor.sh"), "hold"]

    def file(self, policy: str) -> Path:
        return self.folder / "cpufreq" / policy / "scaling_governor"

    @property
    def journal(self) -> Path:
        return self.folder / "state" / "journal"

    def set(self, **values: str) -> None:
        for policy, value in values.items():
            self.file(policy).parent.mkdir(parents=True, exist_ok=True)
            self.file(policy).write_text(f"{value}\n")

    def now(self) -> dict[str, str]:
        return {policy: self.file(policy).read_text().strip() for policy in OLD if self.file(policy).exists()}

    def reboot(self) -> None:
        """The kernel starts with its own governors; files below /run may survive where it is no tmpfs."""
        (self.folder / "boot_id").write_text("another boot\n")
        self.set(**DEFAULTS)

    def run(self, verb: str) -> subprocess.CompletedProcess[str]:
        command = [*self.hold[:2], verb]
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    found = Fake(tmp_path)
    script = governor.SCRIPT.read_text(encoding="utf-8")
    for real, made in {
        "=/sys/devices/system/cpu/cpufreq\n": f"={tmp_path}/cpufreq\n",
        "=/proc/sys/kernel/random/boot_id\n": f"={tmp_path}/boot_id\n",
        "=/run/pilite-governor\n": f"={tmp_path}/state\n",
        "\nWAIT=10 ": "\nWAIT=1 ",
    }.items():
        assert real in script
        script = script.replace(real, made)
    (tmp_path / "governor.sh").write_text(script)
    (tmp_path / "boot_id").write_text("this boot\n")
    found.set(**OLD)
    return found


HEARS = ("env", "--default-signal=HUP,INT")  # a shell cannot trap what nohup made its parents ignore


@contextmanager
def held(fake: Fake) -> Iterator[subprocess.Popen[bytes]]:
    """A hold that has begun; it ends with this block, if it has not before."""
    with subprocess.Popen(
        [*HEARS, *fake.hold],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as helper:
        assert helper.stdout is not None
        assert helper.stdout.readline() == b"held\n"
        assert set(fake.now().values()) == {"performance"}
        yield helper
        helper.kill()


def close(helper: subprocess.Popen[bytes]) -> None:
    assert helper.stdin is not None
    helper.stdin.close()


ENDS: dict[str, Callable[[subprocess.Popen[bytes]], None]] = {
    "stdin is closed": close,
    "SIGTERM": lambda helper: helper.send_signal(signal.SIGTERM),
    "SIGHUP": lambda helper: helper.send_signal(signal.SIGHUP),
    "SIGINT": lambda helper: helper.send_signal(signal.SIGINT),
}


@pytest.mark.parametrize("how", ENDS)
def test_the_old_governors_are_back_however_a_hold_ends(fake: Fake, how: str) -> None:
    with held(fake) as helper:
        assert fake.journal.read_text().splitlines()[1:] == ["policy0 ondemand", "policy4 schedutil"]
        ENDS[how](helper)
        assert helper.wait(30) == 0
    assert fake.now() == OLD
    assert not fake.journal.exists()


@pytest.mark.fault("governor's helper killed")
@pytest.mark.parametrize("verb", ["restore", "hold"])
def test_what_a_killed_hold_left_is_restored_by_the_next_call(fake: Fake, verb: str) -> None:
    with held(fake) as helper:
        helper.kill()
        helper.wait()
    assert set(fake.now().values()) == {"performance"}
    assert fake.run(verb).returncode == 0  # stdin is empty: a hold ends at once
    assert fake.now() == OLD
    assert not fake.journal.exists()


@pytest.mark.fault("stale governor journal")
def test_a_journal_of_another_boot_changes_nothing(fake: Fake) -> None:
    with held(fake) as helper:
        helper.kill()
        helper.wait()
    fake.reboot()
    for verb in ("restore", "hold"):
        assert fake.run(verb).returncode == 0
        assert fake.now() == DEFAULTS
    assert not fake.journal.exists()


def test_a_governor_that_somebody_set_meanwhile_stays(fake: Fake) -> None:
    with held(fake) as helper:
        fake.set(policy0="powersave")
        close(helper)
        helper.wait(30)
    assert fake.now() == {**OLD, "policy0": "powersave"}


def test_a_cpu_that_is_gone_meanwhile_keeps_no_other_from_its_governor(fake: Fake) -> None:
    with held(fake) as helper:
        fake.file("policy0").unlink()
        close(helper)
        helper.wait(30)
    assert fake.now() == {"policy4": "schedutil"}


def test_a_second_hold_is_refused_and_the_first_one_stays(fake: Fake) -> None:
    with held(fake) as helper:
        second = fake.run("hold")
        assert (second.returncode, second.stderr) == (75, "another measurement holds the clock governor\n")
        assert set(fake.now().values()) == {"performance"}
        close(helper)
        helper.wait(30)
    assert fake.now() == OLD


def test_a_second_hold_waits_for_a_first_one_that_is_ending(fake: Fake) -> None:
    with held(fake) as helper:
        threading.Timer(0.3, close, [helper]).start()
        assert fake.run("hold").returncode == 0
        assert helper.wait(30) == 0
    assert fake.now() == OLD


def test_a_governor_that_cannot_be_set_leaves_all_as_they_were(fake: Fake) -> None:
    fake.file("policy4").chmod(0o444)
    if os.geteuid() == 0:
        fake.file("policy4").unlink()
        fake.file("policy4").symlink_to("/proc/version")  # root can read it, and cannot write it
    before = fake.file("policy4").read_text()
    done = fake.run("hold")
    assert (done.returncode, done.stdout) == (4, "")
    assert "does not take performance" in done.stderr
    assert fake.file("policy0").read_text() == "ondemand\n"
    assert fake.file("policy4").read_text() == before


@pytest.mark.fault("no cpufreq")
def test_a_board_without_a_governor_says_so(fake: Fake) -> None:
    for policy in OLD:
        fake.file(policy).unlink()
    assert measure.Governor(fake.hold).note == f"no cpufreq in {fake.folder}/cpufreq"


def hold_with(helper: Path, path: Path) -> measure.Governor:
    """What bench runs, with another helper and other programs."""
    shell = ["env", f"PATH={path}", "/bin/sh"]
    found = measure.Governor([*shell, *governor.HOLD[1:-1], str(helper)])
    found.release()
    return found


def test_a_board_that_was_not_onboarded_says_so(tmp_path: Path) -> None:
    assert hold_with(tmp_path / "none", tmp_path).note == "its helper is not there"


@pytest.mark.fault("no sudo")
def test_a_board_without_sudo_says_so(tmp_path: Path) -> None:
    helper = tmp_path / "helper"
    helper.touch(mode=0o755)
    assert re.search(r"sudo: not found", hold_with(helper, tmp_path).note or "")


def test_a_measurement_holds_the_governor_until_it_releases_it(fake: Fake) -> None:
    holding = measure.Governor(fake.hold)
    assert (holding.note, set(fake.now().values())) == (None, {"performance"})
    holding.release()
    holding.release()
    assert fake.now() == OLD


HOLDER = """
import sys, json; sys.path.insert(0, sys.argv[1]); import measure, time
assert measure.Governor(json.loads(sys.argv[2])).note is None
print("ready", flush=True); time.sleep(99)
"""


@pytest.mark.fault("measurement killed")
def test_a_measurement_that_is_killed_leaves_no_governor_changed(fake: Fake) -> None:
    folder = str(Path(measure.__file__).parent)
    command = [sys.executable, "-c", HOLDER, folder, json.dumps(fake.hold)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert set(fake.now().values()) == {"performance"}
        process.kill()
    until(lambda: fake.now() == OLD and not fake.journal.exists())


# profile and tune --board, which need no Python there.


@pytest.fixture
def helper(fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The program that a board of files has, and a sudo that lets everybody be who they are."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sudo").write_text('#!/bin/sh\nshift\nexec "$@"\n')
    (tmp_path / "bin" / "sudo").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    (fake.folder / "governor.sh").chmod(0o755)
    return str(fake.folder / "governor.sh")


def test_a_command_has_the_governor_and_gives_it_back(local_bed: Bed, fake: Fake, helper: str) -> None:
    script = f'cat {fake.folder}/cpufreq/*/scaling_governor; echo "$1"; exit "$2"'
    command = ["sh", "-c", script, "sh", "it's"]
    done = governor.held(local_bed.board, local_bed.connection, [*command, "0"], 30, helper)
    assert done.out == "performance\nperformance\nit's\n"
    assert fake.now() == OLD
    with pytest.raises(BoardError, match=r"ended with 3: "):
        governor.held(local_bed.board, local_bed.connection, [*command, "3"], 30, helper)
    assert (fake.now(), fake.journal.exists()) == (OLD, False)


@pytest.mark.fault("profile killed")
@pytest.mark.parametrize("code", ["kill -9 $PPID; sleep 9", "sleep 99"])
def test_a_command_that_is_killed_leaves_no_governor_changed(
    local_bed: Bed, fake: Fake, helper: str, code: str
) -> None:
    with pytest.raises(BoardError):
        governor.held(local_bed.board, local_bed.connection, ["sh", "-c", f"{code}; true"], 3, helper)
    until(lambda: fake.now() == OLD and not fake.journal.exists())


def test_a_command_without_the_helper_runs_all_the_same(local_bed: Bed, fake: Fake, tmp_path: Path) -> None:
    for missing in (tmp_path / "none", tmp_path):
        done = governor.held(local_bed.board, local_bed.connection, ["echo", "ran"], 30, str(missing))
        assert done.out == "ran\n"
    assert fake.now() == OLD


def test_two_measurements_at_once_are_refused(local_bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(governor, "WAIT_S", 0.5)
    with Path(governor.lock_of(local_bed.board)).open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(BoardError, match=r"^local: another measurement runs there; .* Try later\.$"):
            governor.held(local_bed.board, local_bed.connection, ["true"], 30)


def test_a_measurement_waits_for_one_that_is_ending(local_bed: Bed) -> None:
    with Path(governor.lock_of(local_bed.board)).open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        threading.Timer(0.5, fcntl.flock, [other, fcntl.LOCK_UN]).start()
        done = governor.held(local_bed.board, local_bed.connection, ["echo", "ran"], 30)
    assert done.out == "ran\n"


# With a kernel, a real sudo and the real paths; the vm's kernel has no clocks, so that these are made.

CLOCKS = """
set -eu
cd /sys/devices/system/cpu/cpufreq
mountpoint -q . || mount -t tmpfs -o mode=755 clocks .
cd /sys/devices/system/cpu/cpufreq
for policy in policy0 policy4; do mkdir -p $policy; done
echo ondemand >policy0/scaling_governor
echo schedutil >policy4/scaling_governor
"""
NARROW = """
set -eu
printf 'root ALL=(ALL:ALL) ALL\\n@includedir /etc/sudoers.d\\n' >/run/sudoers
chmod 440 /run/sudoers
mount --bind /run/sudoers /etc/sudoers
"""


def clocks(bed: Bed) -> list[str]:
    return bed.connection.check(
        ["sh", "-c", "cat /sys/devices/system/cpu/cpufreq/policy*/scaling_governor"]
    ).split()


@pytest.fixture
def clocked(vm_bed: Bed) -> Iterator[Bed]:
    """The vm with two clocks and our helper; afterwards its power is cut, which takes both away."""
    vm_bed.connection.check(["sudo", "-n", "sh", "-c", CLOCKS])
    assert governor.install(vm_bed.board, vm_bed.connection) == []
    yield vm_bed
    boards.power_cut(vm_bed.board, ARTIFACTS)


@pytest.mark.slow
def test_onboarding_installs_one_program_that_the_user_may_call(clocked: Bed) -> None:
    ask = clocked.connection
    about = ask.check(["stat", "-c", "%U %a", governor.PROGRAM, "/etc/sudoers.d/pilite"]).splitlines()
    assert about == ["root 755", "root 440"]
    assert governor.install(clocked.board, ask) == []  # a second time changes nothing
    ask.check(["sudo", "-n", "sh", "-c", NARROW])  # from here on its user is nobody special
    assert ask.run(["sudo", "-n", "true"]).code != 0
    assert ask.run(["sudo", "-n", governor.PROGRAM, "install"]).code != 0
    assert ask.check(["sudo", "-n", governor.PROGRAM, "restore"]) == ""
    assert governor.install(clocked.board, ask) == []


@pytest.mark.slow
def test_a_user_who_may_not_use_sudo_is_told_what_to_type(vm_bed: Bed) -> None:
    vm_bed.connection.check(["sudo", "-n", "sh", "-c", f"{CLOCKS}{NARROW}"])
    try:
        (remark,) = governor.install(vm_bed.board, vm_bed.connection)
    finally:
        boards.power_cut(vm_bed.board, ARTIFACTS)
    assert not remark.fatal
    assert "password is required" in remark.text
    assert remark.text.endswith(f"To let it, there: sudo sh {vm_bed.root}/governor.sh install")


@pytest.mark.slow
@pytest.mark.fault("governor after a measurement, a killed one, a power cut")
def test_a_measurement_sets_the_governor_and_nothing_leaves_it_set(clocked: Bed, vm: Board) -> None:
    old = ["ondemand", "schedutil"]
    subject = deployed(clocked, Stub(1))
    done = trial.run(clocked.board, clocked.connection, subject, [PILITE], (1,), QUICK, clocked.artifacts)
    assert (done.measured["governor"], done.measured["governor_note"]) == ("performance", None)
    assert clocks(clocked) == old
    with pytest.raises(BoardError, match="was not done after 20 s"):
        trial.run(clocked.board, clocked.connection, subject, [PILITE], (1,), ENDLESS, clocked.artifacts)
    until(lambda: clocks(clocked) == old)
    now = ["sh", "-c", "cat /sys/devices/system/cpu/cpufreq/policy*/scaling_governor"]
    during = governor.held(clocked.board, clocked.connection, now, 60)
    assert (during.out, clocks(clocked)) == ("performance\nperformance\n", old)
    with pytest.raises(BoardError, match="was not done after 5 s"):
        governor.held(clocked.board, clocked.connection, ["sleep", "99"], 5)
    until(lambda: clocks(clocked) == old)
    holding = ["sh", "-c", f"(sleep 60 | sudo -n {governor.PROGRAM} hold) >/dev/null 2>&1 &"]
    clocked.connection.check(holding)
    until(lambda: clocks(clocked) == ["performance"] * 2)
    boards.power_cut(vm, ARTIFACTS)
    with boards.connect(vm, ARTIFACTS) as again:
        again.check(["sudo", "-n", "sh", "-c", CLOCKS])
        bed = replace(clocked, connection=again)
        assert governor.install(vm, again) == []
        again.check(["sudo", "-n", governor.PROGRAM, "restore"])
        assert clocks(bed) == old
