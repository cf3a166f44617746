"""stand-in"""

from typing import Any


def results_frame(results: Any, attached: Any = None) -> Any: ...
