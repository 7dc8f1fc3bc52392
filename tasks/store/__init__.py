"""A campaign's folder: where things are, how they are written, what they say."""
