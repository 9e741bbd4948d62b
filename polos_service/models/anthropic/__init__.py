"""The Messages API of Anthropic, which some other servers speak as well."""
