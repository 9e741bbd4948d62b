"""The service: runs agents durably and streams their logs over gRPC."""
