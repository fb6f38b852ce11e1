"""`python -m fusible` is the command `fusible`."""

from __future__ import annotations

from fusible.cli import main

if __name__ == "__main__":
    main()
