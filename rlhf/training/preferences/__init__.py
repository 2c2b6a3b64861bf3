"""What stages share that learn from pairs: labels, batches of rankings, stopping early."""
