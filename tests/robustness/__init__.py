"""Bad input: errors in bounded time and memory."""
