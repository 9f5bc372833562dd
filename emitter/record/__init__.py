"""What is counted. Knows nothing of bytes, sockets or reports."""
