"""Images: where they come from (sources), which of them (subsets), how training sees them (views)."""
