"""The Grafana dashboard of a pool: what it shows, and the program that writes it."""
