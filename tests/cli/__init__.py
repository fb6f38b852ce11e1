"""The command line: each command in this process, a few in processes of their own."""
