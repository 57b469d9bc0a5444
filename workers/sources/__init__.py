"""What a user writes for an API (sources and connectors), and the code that sends requests to it."""
