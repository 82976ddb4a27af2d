"""What `import ascent` costs beyond `import torch`: the median over fresh processes; the promise is under 0.5 s.

    python benchmarks/import_time.py

It is what every command and every notebook waits for.
"""

from __future__ import annotations

import statistics
import subprocess
import sys

from report import Ratio, machine, write

REPEATS = 7
PROMISE = 0.5  # seconds
SCRIPT = (
    "import time; a = time.perf_counter(); import torch; b = time.perf_counter(); "
    "import ascent; print(b - a, time.perf_counter() - b)"
)


def main() -> None:
    measured: list[tuple[float, float]] = []
    # The first process fills the disk cache and writes bytecode; it does not count.
    for _ in range(REPEATS + 1):
        found = subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True)
        first, second = found.stdout.split()
        measured.append((float(first), float(second)))
    rows = [
        {
            "import": name,
            "median (s)": round(statistics.median(pair[place] for pair in measured[1:]), 3),
            "lowest (s)": round(min(pair[place] for pair in measured[1:]), 3),
            "highest (s)": round(max(pair[place] for pair in measured[1:]), 3),
        }
        for place, name in enumerate(("torch", "ascent, beyond torch"))
    ]
    notes = f"{REPEATS} fresh processes; the promise is under {PROMISE} s beyond torch."
    own = statistics.median(second for _, second in measured[1:])
    ratio = Ratio("import ascent, beyond torch", "the promise", f"{own:.2f} s", f"{PROMISE} s", PROMISE / own, 1.0)
    write("import_time", "Import time", rows, machine("torch"), notes, [ratio])


if __name__ == "__main__":
    main()
