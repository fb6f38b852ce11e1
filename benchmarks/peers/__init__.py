"""The systems compared with, each an adapter behind one protocol."""
