"""Requests made up by Hypothesis, and what must be true of every answer."""
