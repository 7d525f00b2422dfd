"""Which of our CPUs a machine is, from its /proc/cpuinfo."""

from __future__ import annotations

import pytest

from pilite.errors import BoardError
from pilite.lab import hostcpu

ARM = ("cortex-a53", "cortex-a72", "cortex-a76")
ALL = (*ARM, "x86-64-v3", "x86-64-v4")
AVX2 = "flags\t\t: fpu sse4_2 avx2 fma bmi2 f16c"
VNNI = f"{AVX2} avx512f avx512bw avx512cd avx512dq avx512vl avx512_vnni"


def pi(part: str, features: str = "fp asimd crc32 cpuid") -> str:
    return f"processor\t: 0\nFeatures\t: {features}\nCPU part\t: {part}\n"


@pytest.mark.parametrize(
    ("cpuinfo", "known", "cpu"),
    [
        pytest.param(pi("0xd03"), ALL, "cortex-a53", id="Pi 3"),
        pytest.param(pi("0xd08"), ALL, "cortex-a72", id="Pi 4"),
        pytest.param(pi("0xd0b", "asimd asimddp"), ALL, "cortex-a76", id="Pi 5"),
        pytest.param(pi("0xd0c", "asimd asimddp"), ALL, "cortex-a76", id="another core with dotprod"),
        pytest.param(pi("0xd07"), ALL, "cortex-a72", id="another core without"),
        pytest.param(AVX2, ALL, "x86-64-v3", id="AVX2"),
        pytest.param(VNNI, ALL, "x86-64-v4", id="AVX-512 VNNI"),
        pytest.param(VNNI, (*ARM, "x86-64-v3"), "x86-64-v3", id="better than what we compile for"),
    ],
)
def test_a_machine_is_the_best_cpu_that_it_can_run(cpuinfo: str, known: tuple[str, ...], cpu: str) -> None:
    assert hostcpu.best(cpuinfo, known) == cpu


def test_a_machine_that_can_run_none_is_told_what_to_do() -> None:
    with pytest.raises(BoardError, match=r"none of: .*Use --board container"):
        hostcpu.best("flags : fpu sse2", ALL)


@pytest.mark.parametrize("cpu", ARM)
def test_a_played_cpu_is_recognised_as_itself(cpu: str) -> None:
    text = hostcpu.qemu_cpuinfo(cpu, 2)
    assert text.count("processor") == 2
    assert hostcpu.best(text, ALL) == cpu
    assert ("asimddp" in text) == (cpu == "cortex-a76")


def test_a_pc_cannot_be_played() -> None:
    with pytest.raises(BoardError, match=r"cannot be a x86-64-v3"):
        hostcpu.qemu_cpuinfo("x86-64-v3", 2)
