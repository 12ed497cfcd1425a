"""What is timed, and who stands beside it."""
