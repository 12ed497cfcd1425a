"""Derivatives of transport by several packages, beside those of a dense system in float64."""
