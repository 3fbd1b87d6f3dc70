"""Measures SnapLLM, beside upstream where upstream can do the same."""
