"""What a person looks at: figures, the page of a round, the report of a campaign, tables for the terminal."""
