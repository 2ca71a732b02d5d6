"""The engine as a process of its own: JSON-RPC 2.0 over stdin and stdout. See docs/engine-protocol.md."""
