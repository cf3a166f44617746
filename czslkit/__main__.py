"""Run the command ``czslkit`` with ``python -m czslkit``."""

from .cli import main

raise SystemExit(main())
