"""``python -m czslkit``, which is the command ``czslkit``."""

from .cli import main

raise SystemExit(main())
