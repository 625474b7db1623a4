"""Stages from YAML files, and whole pipelines of them: `ssdd run` and `ssdd refine`."""
