"""Which of our CPUs this machine is: the best one of toolchains/ whose instructions it has."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from pilite.errors import BoardError

TOOLCHAINS = Path(__file__).resolve().parents[2] / "toolchains"

# Best first. A CPU is ours if the machine has all of its features, in the words of /proc/cpuinfo.
_AVX2 = frozenset({"avx2", "fma", "bmi2", "f16c"})
_AVX512 = _AVX2 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx512_vnni"}
FEATURES = {
    "x86-64-v4": _AVX512,
    "x86-64-v3": _AVX2,
    "cortex-a76": frozenset({"asimd", "asimddp"}),
    "cortex-a72": frozenset({"asimd"}),
}
PARTS = {"0xd03": "cortex-a53", "0xd08": "cortex-a72", "0xd0b": "cortex-a76"}  # "CPU part" of the three Pis

# What QEMU 7.2 shows in AT_HWCAP. Real Pi 3 and 4 have no aes, pmull, sha1, sha2.
_QEMU_A72 = "fp asimd aes pmull sha1 sha2 crc32 cpuid"
_QEMU_A76 = "fp asimd aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
QEMU_FEATURES = {"cortex-a53": _QEMU_A72, "cortex-a72": _QEMU_A72, "cortex-a76": _QEMU_A76}


def arch_of(cpu: str) -> str:
    """The machine, as uname names it, that a CPU belongs to."""
    return "x86_64" if cpu.startswith("x86-64") else "aarch64"


def known(toolchains: Path = TOOLCHAINS) -> list[str]:
    """The CPUs that pilite compiles for."""
    return sorted(path.stem for path in toolchains.glob("*.toml") if path.stem != "link")


def best(cpuinfo: str | None = None, known_cpus: Collection[str] | None = None) -> str:
    """The name of this machine's CPU. Raises BoardError if it has the instructions of none that we know."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace") if cpuinfo is None else cpuinfo
    cpus = known() if known_cpus is None else known_cpus
    part = PARTS.get(value_of(text, "CPU part"))
    if part in cpus and part is not None:
        return part
    features = set((value_of(text, "flags") or value_of(text, "Features")).split())
    for cpu, needed in FEATURES.items():
        if cpu in cpus and needed <= features:
            return cpu
    raise BoardError(
        f"This machine's CPU has the instructions of none of: {', '.join(cpus)}. Use --board container, or a "
        f"board file with another cpu."
    )


def value_of(cpuinfo: str, field: str) -> str:
    """The first "field : value" of /proc/cpuinfo; "" if there is none."""
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == field:
            return value.strip()
    return ""


def qemu_cpuinfo(cpu: str, cores: int) -> str:
    """A /proc/cpuinfo that agrees with the CPU that QEMU plays; the kernel would show the host's.

    XNNPACK reads it, and ai-edge-litert crashes if it describes another architecture.
    Raises BoardError for a CPU that has no description here.
    """
    part = {name: part for part, name in PARTS.items()}.get(cpu)
    if part is None:
        raise BoardError(f"An emulated board cannot be a {cpu}; it can be: {', '.join(PARTS.values())}.")
    lines = (
        f"Features\t: {QEMU_FEATURES[cpu]}",
        "CPU implementer\t: 0x41",
        "CPU architecture: 8",
        "CPU variant\t: 0x0",
        f"CPU part\t: {part}",
        "CPU revision\t: 0",
    )
    return "".join(f"processor\t: {core}\n" + "\n".join(lines) + "\n\n" for core in range(cores))
