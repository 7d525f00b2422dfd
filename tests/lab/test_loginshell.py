"""Commands behind login shells of every kind, and behind start-up files that talk."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pilite.lab import loginshell

ODD = 'it\'s "odd" $HOME `id` \\ \\\\ * ~ !! %s ünï 火\n\ttwo lines; # no comment\\n'
SHELLS = [found for found in ("sh", "bash", "zsh", "fish", "tcsh", "ksh") if shutil.which(found)]
NOISE = "echo hello; echo warning >&2; "  # tcsh writes both into a file that is called 2


def ran(shell: str, line: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([shell, "-c", line], capture_output=True, text=True, check=False, cwd=cwd)


@pytest.mark.parametrize("shell", SHELLS)
def test_words_arrive_as_they_are_behind_every_login_shell(shell: str, tmp_path: Path) -> None:
    command = ["sh", "-c", 'printf "%s|%s" "$1" "$COLOUR"; echo no >&2; exit 3', "sh", ODD]
    done = ran(shell, NOISE + loginshell.line(command, 9, 1, {"COLOUR": ODD}), tmp_path)
    assert (done.returncode, loginshell.output(done.stdout)) == (3, f"{ODD}|{ODD}")
    assert loginshell.output(done.stderr) == "no\n"


def test_what_a_command_says_is_english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    done = ran("sh", loginshell.line(["sh", "-c", 'echo "$LC_ALL"'], 9, 1, {}))
    assert loginshell.output(done.stdout) == "C\n"


def test_a_command_that_takes_too_long_is_killed() -> None:
    assert ran("sh", loginshell.line(["sleep", "30"], 1, 1, {})).returncode == 124


def test_a_shell_that_lets_nobody_in_is_told_from_a_silent_command() -> None:
    assert loginshell.output("This account is not available.\n") is None
