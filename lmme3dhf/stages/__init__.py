"""The stages: what trains, on which view of the data, with which loss (Section 4.2)."""
