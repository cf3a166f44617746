"""Conformance checks of methods, backbones, datasets and components, for the tests of plugin authors.

Each of the four functions runs every check of its kind through the real parts of czslkit and returns a :class:`Report`.
If a check fails, it raises a :class:`ConformanceError`, which is an ``AssertionError``.
"""

from .conformance import check_backbone as check_backbone
from .conformance import check_component as check_component
from .conformance import check_dataset as check_dataset
from .conformance import check_method as check_method
from .report import ConformanceError as ConformanceError
from .report import Report as Report
from .scores import check_gradients as check_gradients
from .scores import check_scores as check_scores
from .tiny_data import demo_space as demo_space
from .tiny_data import write_tiny as write_tiny
