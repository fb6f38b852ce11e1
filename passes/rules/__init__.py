"""Rewrite rules, grouped by what they are about; the passes that apply them stand in `passes/`."""
