"""Who is calling: API keys, tokens of an issuer, certificates of clients, tokens of runs."""
