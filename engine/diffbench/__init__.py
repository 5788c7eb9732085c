"""DiffBench: tasks in plain language, the scorer of programs that answer them, and the runner."""
