"""Tables, pages, plots and comparisons of what was measured."""
