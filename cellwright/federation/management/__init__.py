"""The federated learning management system (FMLMS): requests, nodes, permissions, topology; as functions and as an HTTP API."""
