"""Scoring: pooled confusions, scorecards, folders of predictions, and the same measure during validation."""
