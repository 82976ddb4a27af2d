"""`python -m ascent.evaluation.exact` renews docs/laboratory.md and its picture."""

import tyro

from ascent.evaluation.exact.table import write

if __name__ == "__main__":
    tyro.cli(write)
