"""Graph passes and rewrite rules."""
