"""What talks to a service: the client, starts, streams and handles."""
