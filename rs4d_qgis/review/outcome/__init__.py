"""What comes of a review: exports, reports, and figures against a reference."""
