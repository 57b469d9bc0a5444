"""The web pages that people watch and steer runs from, and the process that serves them; needs the extra `monitor`."""
