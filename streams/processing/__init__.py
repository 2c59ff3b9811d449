"""Ring 2: stream semantics of one task (partition p of all input topics together)."""
