"""A model at work on windows in this process, within what memory allows."""
