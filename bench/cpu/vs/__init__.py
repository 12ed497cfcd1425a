"""This package beside one peer each."""
