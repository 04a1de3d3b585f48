"""Looking at data for people: `hqsam doctor data` and `hqsam data show`."""
