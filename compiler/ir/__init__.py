"""The graph IR: types, symbols, ops, graphs, verification and text."""
