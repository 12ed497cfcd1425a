"""Random problems as users have them, and an oracle that shares nothing with any solver."""
