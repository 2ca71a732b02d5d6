"""From what windows, or scenes, show alike to one instance each, and none over another."""
