"""The messages and stubs of polos.v1."""
