"""What calls cost the host, counted without a card."""
