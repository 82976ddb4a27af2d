"""The loop: act, score, annotate, credit; then prepare, improve, step for each update; after."""
