"""HTTP addresses, one module a subject. Each makes a router for one service."""
