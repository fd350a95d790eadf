"""What `kt doctor` looks at. It changes nothing, but for a small file that it removes again."""
