"""The calls as users make them, timed from Python to the end of the device's work."""
