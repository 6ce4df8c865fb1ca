"""Flask apps that tests run under real servers."""
