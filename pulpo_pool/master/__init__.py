"""One parent process: keep the slots filled."""
