"""Bounds on the repository itself; each check is seen to fail on a violation planted in a copy of the tree."""
