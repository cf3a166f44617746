"""The benchmark runner: a job is planned, prepared, trained, evaluated and recorded."""
