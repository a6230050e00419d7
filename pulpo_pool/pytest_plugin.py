"""The pytest plugin: fixtures for tests of a user's own app."""
