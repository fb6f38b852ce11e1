"""Regions: scalar expressions, index maps, definitions interpreted, the form below the graph."""
