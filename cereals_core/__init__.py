"""The method as pure functions: arrays in, arrays out; no orchestration, no campaign paths."""
