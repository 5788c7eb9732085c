"""The agent: a language model plans, writes and repairs programs."""
