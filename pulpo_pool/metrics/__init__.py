"""What a pool exports: the catalogue, and the files in which slots keep their numbers."""
