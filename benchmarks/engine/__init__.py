"""How fast and how safe model calls are, against a scripted endpoint in a process of its own."""
