"""Numbers -> record.json."""
