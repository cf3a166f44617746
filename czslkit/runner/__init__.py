"""The benchmark runner plans, prepares, trains, evaluates and records jobs."""
