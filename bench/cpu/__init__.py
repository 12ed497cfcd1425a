"""What is measured on a CPU, and the cases and the judge of all of it."""
