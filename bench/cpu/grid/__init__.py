"""The grid: every solver on every problem to stated errors."""
