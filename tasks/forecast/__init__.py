"""What a campaign will take of time, memory and disk."""
