"""What a user writes an app with: Pulpo, handlers, results, retry policies."""
