"""Scoring of folders of predictions: scorecards, tables, charts, and archives for the VOC server."""
