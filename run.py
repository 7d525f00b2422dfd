#!/usr/bin/env python3
"""Make `.venv` from requirements.lock once, then run `invoke TASK...` in it: `python3 run.py build bench`.

Standard library only, in the syntax of Python 3.6: an old Python shows the refusal and not a SyntaxError.

    .venv complete for this lock, Python and machine?   (one stamp file, written last)
      yes  start invoke in it                           (nothing else is touched)
      no   wait for the lock, rebuild .venv from nothing, install with hashes, write the stamp, start invoke

A shared flock on the checkout's folder is kept while tasks run, so a rebuild waits for them and never pulls
the environment away under a running benchmark.
"""

import fcntl
import hashlib
import os
import sys

ROOT = os.path.dirname(os.path.abspath(__file__))
PYTHONS = ((3, 10), (3, 11), (3, 12))
MACHINES = ("x86_64", "aarch64")
SUPPORTED = "CPython 3.10, 3.11 or 3.12, 64-bit, on x86-64 or aarch64 Linux with glibc"

PACKAGE = ("Collecting ", "Processing ")  # pip says one of them per package; the second for a local wheel

FAILURES = (
    # (what pip prints, what it means, what to do); the first that fits is shown
    ("No space left on device", "the disk is full", "make 2 GB of room"),
    (
        "DO NOT MATCH THE HASHES",
        "the package index served a file that is not the locked one",
        "check PIP_INDEX_URL and pip.conf; do not install it",
    ),
    (
        "Retrying (",
        "the package index cannot be reached",
        "check the network, HTTPS_PROXY, or PIP_INDEX_URL if you use a mirror",
    ),
    (
        "No matching distribution found",
        "the package index lacks a locked package for this machine",
        "check PIP_INDEX_URL and pip.conf: a mirror may be incomplete, or pip's network may be off",
    ),
    ("Permission denied", "a file cannot be written", "check who owns the checkout and .venv"),
)


class Refusal(Exception):
    """This machine or its state is not usable; the text says why and what to do. Exit code 2."""


def unsupported(
    version: "tuple[int, ...]", implementation: str, system: str, machine: str, bits: int, glibc: bool
) -> str:
    """Why pilite cannot run here, or an empty string."""
    checks = (
        (system == "Linux", "the system is " + system),
        (machine in MACHINES, "the machine is " + machine),
        (implementation == "cpython", "the interpreter is " + implementation),
        (bits == 64, f"the interpreter is a {bits}-bit one"),
        (glibc, "the C library is not glibc"),
        (version[:2] in PYTHONS, "this is Python {}.{}".format(*version[:2])),
    )
    return "; ".join(reason for good, reason in checks if not good)


def has_glibc() -> bool:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (ValueError, OSError):
        return False


def refuse_if_unsupported() -> None:
    system, _, _, _, machine = os.uname()
    bits = 64 if sys.maxsize > 2**32 else 32
    reason = unsupported(sys.version_info[:3], sys.implementation.name, system, machine, bits, has_glibc())
    if reason:
        raise Refusal(f"pilite needs {SUPPORTED}; {reason}.")


def stamp_text(root: str) -> str:
    """What the stamp of a complete environment says: the lock's hash, the Python and the machine."""
    try:
        with open(os.path.join(root, "requirements.lock"), "rb") as lock:
            digest = hashlib.sha256(lock.read()).hexdigest()
    except OSError as problem:
        raise Refusal(f"{problem.filename}: {problem.strerror}. The checkout is incomplete.") from None
    return f"{digest} {sys.version_info[0]}.{sys.version_info[1]} {os.uname()[4]}\n"


def is_complete(venv: str, wanted: str) -> bool:
    """True if `venv` was finished for this lock, Python and machine, and still has its interpreter."""
    try:
        with open(os.path.join(venv, "pilite.stamp")) as stamp:
            found = stamp.read()
    except OSError:
        return False
    # exists() follows the link to the system's Python: false after that Python was removed
    return found == wanted and all(
        os.path.exists(os.path.join(venv, "bin", name)) for name in ("python", "invoke")
    )


def require_venv_module() -> None:
    """Debian splits `ensurepip` from its Python; say which package brings it.

    Raises Refusal if either module is missing.
    """
    import importlib.util

    missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    if not missing:
        return
    package = "python{}.{}-venv".format(*sys.version_info[:2])
    raise Refusal(
        "this Python has no module {}. Install it and run again: on Debian, Ubuntu or Raspberry Pi OS\n"
        "  sudo apt-get install {}\nelsewhere the package that has Python's venv and ensurepip.".format(
            " and ".join(missing), package
        )
    )


def child_environment() -> "dict[str, str]":
    """The environment for pip: without the user's Python paths, and without a cache when there is no home."""
    skip = ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX", "PIP_USER", "PIP_REQUIRE_VIRTUALENV")
    environment = {name: value for name, value in os.environ.items() if name not in skip}
    if not environment.get("HOME"):
        environment["PIP_NO_CACHE_DIR"] = "1"
    return environment


def explain(output: str) -> str:
    """Turn what pip printed into one sentence of what happened and what to do."""
    for needle, meaning, action in FAILURES:
        if needle in output:
            return f"{meaning}: {action}, then run again"
    return "pip failed: read its last lines above, then run again"


def pip_install(python: str, lock: str) -> None:
    """Install the lock into the environment of `python`, showing one short line per package.

    Raises Refusal with the reason if pip fails.
    """
    import subprocess

    command = [python, "-m", "pip", "install", "--require-hashes", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--no-deps", "--progress-bar=off", "-r", lock]
    pip = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        universal_newlines=True,
        env=child_environment(),
    )
    lines = []
    assert pip.stdout is not None
    for line in pip.stdout:
        lines.append(line)
        show(line, sum(entry.startswith(PACKAGE) for entry in lines))
    if pip.wait() != 0:
        sys.stderr.write("".join(lines[-12:]))
        raise Refusal("{}. An unfinished .venv is rebuilt by itself.".format(explain("".join(lines))))


def show(line: str, count: int) -> None:
    """One line of progress for the lines of pip that mean progress."""
    if line.startswith(PACKAGE):
        say(f"{count:3} {os.path.basename(line.split()[1])}")
    elif line.startswith("Installing collected"):
        say("unpacking")
    elif "Retrying (" in line:
        say("the package index does not answer, trying again")


def say(text: str) -> None:
    sys.stderr.write(f"run.py: {text}\n")
    sys.stderr.flush()


def build(root: str, venv: str, wanted: str) -> None:
    """Make the environment from nothing. The stamp comes last: interrupted, it counts as incomplete."""
    import subprocess

    require_venv_module()
    stamp = os.path.join(venv, "pilite.stamp")
    if os.path.exists(stamp):
        os.remove(stamp)
    say("making .venv from requirements.lock (once per lock; about 1.3 GB on disk)")
    # run by the environment that it replaces, the interpreter to use is the one below it
    base = getattr(sys, "_base_executable", None) or sys.executable
    done = subprocess.run(
        [base, "-m", "venv", "--clear", venv], stdout=2, env=child_environment(), check=False
    )
    if done.returncode != 0:
        raise Refusal(f"'python3 -m venv' failed in {venv}: read its lines above.")
    pip_install(os.path.join(venv, "bin", "python"), os.path.join(root, "requirements.lock"))
    with open(stamp + ".new", "w") as new:
        new.write(wanted)
        new.flush()
        os.fsync(new.fileno())
    os.replace(stamp + ".new", stamp)
    say(".venv is complete")


def lock(folder: int, how: int) -> None:
    """flock the checkout's folder; say so if that means waiting, or if the file system has no locks."""
    try:
        fcntl.flock(folder, how | fcntl.LOCK_NB)
    except BlockingIOError:
        say("waiting for another run.py in this checkout")
        fcntl.flock(folder, how)
    except OSError as problem:
        say(f"no lock on this file system ({problem.strerror}); do not start a second run.py now")


def ensure(root: str, venv: str) -> None:
    """Leave with a complete environment and a shared lock that the process keeps, also through exec.

    Raises Refusal if the environment cannot be made.
    """
    wanted = stamp_text(root)
    folder = os.open(root, os.O_RDONLY)
    os.set_inheritable(folder, True)
    lock(folder, fcntl.LOCK_SH)
    while not is_complete(venv, wanted):
        lock(folder, fcntl.LOCK_EX)
        if not is_complete(venv, wanted):  # else another run.py finished it while this one waited
            build(root, venv, wanted)
        lock(folder, fcntl.LOCK_SH)


def main(arguments: "list[str]") -> int:
    """Does not return when all is well: invoke takes the process over, so its exit code is this one's."""
    venv = os.path.join(ROOT, ".venv")
    try:
        refuse_if_unsupported()
        ensure(ROOT, venv)
    except Refusal as refusal:
        sys.stderr.write(f"run.py: {refusal}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("\nrun.py: interrupted; run again, an unfinished .venv is rebuilt by itself\n")
        return 130
    python = os.path.join(venv, "bin", "python")
    # tasks.py is an invoke program; by its path, so the caller's folder stays off the import path and is kept
    command = [python, os.path.join(ROOT, "tasks.py"), *(arguments or ["--list"])]
    sys.stdout.flush()
    os.execv(python, command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
