"""Housekeeping on a queue connection of its own: rescue and counts."""
