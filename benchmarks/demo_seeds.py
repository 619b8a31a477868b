"""How well does the demo do on any seed? python benchmarks/demo_seeds.py [FIRST] [LAST] [WORK]

Runs `pose3d demo` for each seed and prints a line: crossings, rig, identities, errors before and after refinement.
Figures: benchmarks/README.md.
"""

import sys
import tempfile
from pathlib import Path

from pose3d.demo import run_demo

first, last = int(sys.argv[1]) if len(sys.argv) > 1 else 0, int(sys.argv[2]) if len(sys.argv) > 2 else 4
work = Path(sys.argv[3] if len(sys.argv) > 3 else tempfile.mkdtemp())
for seed in range(first, last + 1):
    told = {report.stage: dict(report.summary) for _, report in run_demo(work / str(seed), seed)}
    line = f"seed {seed}: {told['film']['crossings']} crossings"
    for stage in ("triangulate", "refine"):
        error, identity = told[stage]["error, % of body length"], told[stage]["identity"]
        delivered = told[stage]["delivered, % of what two cameras saw"]
        line += f" | {stage}: median {error['median']:.2f} %, p95 {error['p95']:.2f} %, delivered {delivered:.2f} %"
    print(line, f"| switches {identity['switches']}, IDF1 {identity['IDF1']:.4f}", flush=True)
