"""One measurement, or several, as a single HTML page that needs nothing else: no network, no scripts."""
