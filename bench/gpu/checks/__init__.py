"""What is checked against float64."""
