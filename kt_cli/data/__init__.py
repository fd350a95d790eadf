"""Images: where they come from (sources), which (subsets), how training sees them (views)."""
