"""What models know that others do not: predictions once per model, statistics once per pair."""
