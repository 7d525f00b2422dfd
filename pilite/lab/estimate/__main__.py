"""python -m pilite.lab.estimate ARTIFACT [--cpu C] [--top N] [--caches]: where one artifact's time goes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pilite.errors import PiliteError
from pilite.lab.estimate import hotspots
from pilite.lab.estimate.models import MODELS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m pilite.lab.estimate", description=__doc__)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--cpu", choices=sorted(MODELS), default="cortex-a53")
    parser.add_argument("--top", type=int, default=10, help="blocks to show")
    parser.add_argument("--short", action="store_true", help="without disassembly")
    parser.add_argument("--caches", action="store_true", help="also simulate the caches: twice the time")
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"))
    options = parser.parse_args()
    try:
        found = hotspots.find(options.artifact, options.cpu, options.caches, options.artifacts)
        hotspots.show(found, options.top, options.short)
    except PiliteError as problem:
        print(problem, file=sys.stderr)
        return problem.exit_code
    return 0


sys.exit(main())
