"""The CPU backend: regions printed as C over our own kernel headers."""
