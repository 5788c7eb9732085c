"""One acceleration technique a file; ``engine.strategy`` says what a file declares."""
