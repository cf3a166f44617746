"""Scripts that the tests start: what they register is not for other tests."""

collect_ignore = ["methods.py", "trainings.py"]
