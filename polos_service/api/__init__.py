"""The faces of the service, one folder for each protocol."""
