"""The untrusted side: a process that runs one program and answers with raw pixels."""
