"""What a run was worth: pass@k, intervals over seeds, curves, comparisons, and the exact laboratory."""
