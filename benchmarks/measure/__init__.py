"""How time is taken: clocks, blocks, statistics, the roofs of the machine."""
