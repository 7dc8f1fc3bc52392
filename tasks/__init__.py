"""Stages as Prefect tasks: each opens its inputs, calls the core, writes its product and commits it."""
