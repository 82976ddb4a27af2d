"""One file a method: a paper or a baseline, registered under its slug. Imports the core only."""
