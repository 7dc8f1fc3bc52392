"""Ways to start a flow."""
