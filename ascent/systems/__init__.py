"""Assemblies: models, worlds and a program from a configuration, and the runs of them."""
