"""Signatures of others, thin: what they compute, by this package."""
