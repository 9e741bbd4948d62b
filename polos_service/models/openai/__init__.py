"""The APIs of OpenAI, which many other servers speak as well."""
