"""What people and Prometheus look at."""
