"""The hottest blocks of one artifact, with their instructions: what to look at when a kernel is too slow."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from pilite.lab.estimate import caches, guests, plugin
from pilite.lab.estimate.cycles import Cost, Costs
from pilite.lab.estimate.models import MODELS
from pilite.lab.estimate.profile import Profile


def show(artifact: Path, cpu: str, top: int, short: bool, with_caches: bool, artifacts: Path) -> None:
    """Print totals and the `top` blocks by cycles of the first model of `cpu`."""
    levels = caches.LEVELS[cpu] if with_caches else ()
    guest = guests.pilite(artifact, cpu, artifacts)
    found = plugin.run(guest, [level.option for level in levels], artifacts)
    cost, whole = Cost(found), found.whole()
    print(f"{artifact} on {cpu}: {found.instructions(whole) / 1e6:.2f} M instructions")
    costs = [cost.costs(model) for model in MODELS[cpu]]
    for model, one in zip(MODELS[cpu], costs, strict=True):
        print(f"  {model.name:14s} {cost.section(one, whole) / 1e6:8.2f} M cycles ({model.about})")
    for level, counted in zip(levels, whole.caches, strict=False):
        print(f"  {level.name:14s} {counted.misses / 1e6:8.3f} M misses, {counted.written_back / 1e6:.3f} M written back")
    if whole.caches:
        print(f"  {'memory':14s} {caches.memory_bytes(whole.caches) / 1e6:8.2f} MB")
    _print_blocks(found, cost, costs, top, short)


def _print_blocks(found: Profile, cost: Cost, costs: list[Costs], top: int, short: bool) -> None:
    spent = [cost.blocks(one) for one in costs]
    whole = found.whole()
    runs: Counter[int] = sum(whole.executions.values(), Counter())
    total, so_far = sum(spent[0].values()), 0
    for number, cycles in spent[0].most_common(top):
        so_far += cycles
        block = found.blocks[number]
        each = "/".join(f"{one[number] / runs[number]:.1f}" for one in spent)
        print(
            f"{100 * cycles / total:5.1f} % (sum {100 * so_far / total:5.1f} %) at {block.address:#x}: {runs[number]} times "
            f"{block.instructions} instructions, {each} cycles, {whole.misses[number] / runs[number]:.2f} misses"
        )
        text = cost.text.get(number, ())
        names = Counter(line.split()[0] for line in text)
        print("       " + " ".join(f"{name}:{n}" for name, n in names.most_common(16)))
        if not short:
            print("".join(f"         {line}\n" for line in text))
