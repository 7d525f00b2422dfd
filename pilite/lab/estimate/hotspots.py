"""The hottest blocks of one artifact, with their instructions: what to look at when a kernel is too slow."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from pilite.lab.estimate import caches, guests, plugin
from pilite.lab.estimate.cycles import Cost
from pilite.lab.estimate.models import MODELS
from pilite.lab.estimate.profile import Block, Profile, Section

NAMES = 16  # most frequent instructions shown of a block


@dataclass(frozen=True)
class Hotspots:
    """A profile with the cycles of its blocks, by every model of the CPU."""

    cpu: str
    profile: Profile
    whole: Section
    totals: dict[str, float]
    spent: dict[str, Counter[int]]
    text: dict[int, tuple[str, ...]]


def find(artifact: Path, cpu: str, with_caches: bool, artifacts: Path) -> Hotspots:
    """Profile one artifact. Raises PiliteError if a tool is missing, CheckFailed if the artifact fails."""
    levels = caches.LEVELS[cpu] if with_caches else ()
    guest = guests.pilite(artifact, cpu, artifacts)
    found = plugin.run(guest, [level.option for level in levels], artifacts)
    cost, whole = Cost(found), found.whole()
    costs = {model.name: cost.costs(model) for model in MODELS[cpu]}
    totals = {name: cost.section(one, whole) for name, one in costs.items()}
    return Hotspots(
        cpu, found, whole, totals, {name: cost.blocks(one) for name, one in costs.items()}, cost.text
    )


def show(found: Hotspots, top: int, short: bool) -> None:
    """Print totals and the `top` blocks by cycles of the first model of the CPU."""
    for line in totals(found):
        print(line)
    first = next(iter(found.spent.values()))
    so_far = 0
    for number, cycles in first.most_common(top):
        so_far += cycles
        share, upto = (100 * n / max(1, sum(first.values())) for n in (cycles, so_far))
        print(f"{share:5.1f} % ({upto:5.1f} % so far) {describe(found, found.profile.blocks[number])}")
        if not short:
            print("".join(f"         {line}\n" for line in found.text.get(number, ())))


def totals(found: Hotspots) -> list[str]:
    """Instructions, cycles by model, misses by level, traffic."""
    lines = [f"{found.profile.instructions(found.whole) / 1e6:10.3f} M instructions on {found.cpu}"]
    for model in MODELS[found.cpu]:
        lines.append(f"{found.totals[model.name] / 1e6:10.3f} M cycles, {model.name}: {model.about}")
    for level, counted in zip(caches.LEVELS[found.cpu], found.whole.caches, strict=False):
        written = f"{counted.written_back / 1e6:.3f} M lines written back"
        lines.append(f"{counted.misses / 1e6:10.3f} M misses of {level.name}, {written}")
    if found.whole.caches:
        lines.append(f"{caches.memory_bytes(found.whole.caches) / 1e6:10.3f} MB from and to memory")
    return lines


def describe(found: Hotspots, block: Block) -> str:
    """One block in two lines: how often, how long, what it is made of."""
    runs = max(1, sum(counts[block.number] for counts in found.whole.executions.values()))
    cycles = " / ".join(f"{spent[block.number] / runs:.1f}" for spent in found.spent.values())
    names = Counter(line.split()[0] for line in found.text.get(block.number, ()))
    return (
        f"at {block.address:#x}: {runs} times {block.instructions} instructions, {cycles} cycles, "
        f"{found.whole.misses[block.number] / runs:.2f} misses\n"
        f"         {' '.join(f'{name}:{n}' for name, n in names.most_common(NAMES))}"
    )
