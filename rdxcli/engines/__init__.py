"""The shard runner and the places where it runs."""
