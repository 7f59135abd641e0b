"""A page to try the metric on one clip at a time, served on this machine alone."""
